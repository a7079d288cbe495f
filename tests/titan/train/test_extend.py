"""More steps for a finished training: it ends as a run does that had these steps from the start."""

from pathlib import Path

import pytest
from tiny_stages import Workbench, records

from flows.resume_proof.comparison import compare_batches, compare_metrics
from titanflow.common.digests import file_digest
from titanflow.planning.begin import begin_stage
from titanflow.planning.extension.more_steps import Extension, find_extension
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.changes import Change
from titanflow.runs.contract import StageRun
from titanflow.runs.inputs import StageInputs
from titanflow.runs.metrics import RECORD_BATCHES
from titanflow.runs.results import TrainResult, read_result

pytestmark = pytest.mark.slow

SCHEDULE = {"warmup_steps": 2, "total_steps": None, "decay_type": "linear", "min_lr_factor": 0.0}
LENGTHS = (10, 15, 20)


def trained(bench: Workbench, name: str, steps: int, ratio: float) -> StageRun:
    run = stage(bench, name, steps, ratio)
    assert bench.run(run, env={RECORD_BATCHES: "1"}) == 0, (run.folder / "log.txt").read_text()
    return run


def stage(bench: Workbench, name: str, steps: int, ratio: float) -> StageRun:
    """A stage whose end falls on no validation of the longer one, and whose decay begins on no interval."""
    return bench.stage(
        name,
        {"lr_scheduler": {**SCHEDULE, "decay_ratio": ratio}, "training": {"steps": steps}},
        {"checkpoint": {"interval": 3, "keep_latest_k": 2, "last_save_model_only": False}},
        {"validation": {"enable": True, "freq": 4, "local_batch_size": 4}},
    )


def extended(bench: Workbench, run: StageRun, old: int, new: int, ratio: float) -> Extension:
    """Plans and trains what is left, as a task does."""
    change = Change(key="pretrain.training.steps", old=old, new=new)
    before = run.model_copy(deep=True)
    before.config["training"]["steps"] = new
    found = find_extension(before, [change], StageInputs())
    assert found is not None, "more steps are more steps"
    begin_stage(StagePlan("pretrain", "EXTEND", str(found), before, extension=found))
    assert bench.run(before, env={RECORD_BATCHES: "1"}) == 0, (run.folder / "log.txt").read_text()
    return found


def result_of(run: StageRun) -> TrainResult:
    result = read_result(run.folder)
    assert isinstance(result, TrainResult)
    return result


def weights(run: StageRun) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(result_of(run).checkpoint.glob("*.distcp"))}


@pytest.mark.parametrize(
    ("ratio", "begins", "left"),
    [(0.0, (10, 15), {15, 18, 20}), (0.35, (6, 10), {13, 15, 18, 20})],
    ids=["constant", "warm-up, plateau and decay"],
)
def test_extended_twice_it_is_the_longer_run_to_the_bit(
    bench: Workbench, ratio: float, begins: tuple[int, int], left: set[int]
) -> None:
    whole = trained(bench, "whole/pretrain", LENGTHS[-1], ratio)
    run = trained(bench, "more/pretrain", LENGTHS[0], ratio)
    first = result_of(run)
    for old, new, begin in zip(LENGTHS, LENGTHS[1:], begins, strict=False):
        found = extended(bench, run, old, new, ratio)
        assert (found.begins, found.refusal) == (begin, "")
    checks = [*compare_metrics("pretrain", whole.folder, run.folder), compare_batches("p", whole.folder, run.folder)]
    assert [check for check in checks if not check.passed] == []
    assert list(records(run)) == list(range(1, LENGTHS[-1] + 1))
    assert weights(run) == weights(whole) != {}
    assert result_of(run).loss == result_of(whole).loss != first.loss
    assert steps_left(whole.folder) == steps_left(run.folder) == left
    superseded = run.folder.parent / "superseded"
    aside = {"step-9", "step-10", "step-12", "step-15"} if ratio else set()
    assert {path.name for path in superseded.glob("*/checkpoint/*")} == aside


def steps_left(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("step-")) for path in (folder / "checkpoint").iterdir()}
