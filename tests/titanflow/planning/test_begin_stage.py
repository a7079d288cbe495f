"""What a stage's folder holds when it begins, and what of it survives a resume."""

from pathlib import Path

import pytest
from finished_stage import finish_training

from titanflow.planning import begin
from titanflow.planning.begin import begin_stage
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.manifest import checkpoint_digest


def test_the_base_that_a_resumed_stage_began_on_stays_on_record(tmp_path: Path) -> None:
    base, checkpoint = tmp_path / "base", tmp_path / "base" / "checkpoint" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("one")
    finish_training(base)
    StageRun(stage="pretrain", experiment="e", run="before", folder=base).write()
    began = checkpoint_digest(checkpoint)

    def begin(state: str) -> str:
        run = StageRun(stage="sft", experiment="e", run="r", folder=tmp_path / "sft", base=base)
        begin_stage(StagePlan("sft", state, "", run))
        return StageRun.read(run.folder / RUN_FILE).base_digest

    assert begin("RUN") == began
    (checkpoint / "weights").write_text("two")
    assert begin("RESUME") == began
    assert begin("RUN") == checkpoint_digest(checkpoint) != began


def attempts(folder: Path, *states: str) -> list[Path | None]:
    """Begins a stage so often; each attempt leaves a log that says which it was."""
    found = []
    for number, state in enumerate(states):
        run = StageRun(stage="pretrain", experiment="e", run="r", folder=folder)
        found.append(begin_stage(StagePlan("pretrain", state, "", run)))  # type: ignore[arg-type]
        with (folder / "pretrain.log").open("a", encoding="utf-8") as log:
            log.write(f"{number}\n")
    return found


def test_a_new_attempt_begins_a_log_of_its_own_and_the_one_before_is_kept(tmp_path: Path) -> None:
    first = tmp_path / "superseded" / "pretrain-1"
    assert attempts(tmp_path / "pretrain", "RUN", "RUN", "RESUME") == [None, first, None]
    assert (first / "pretrain.log").read_text() == "0\n"
    assert (tmp_path / "pretrain" / "pretrain.log").read_text() == "1\n2\n"


def test_of_attempts_that_made_nothing_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "KEPT_FAILURES", 2)
    attempts(tmp_path / "pretrain", "RUN", "RUN")
    superseded = tmp_path / "superseded"
    (superseded / "pretrain-1" / RESULT_FILE).touch()
    (tmp_path / "pretrain" / "checkpoint" / "step-1").mkdir(parents=True)
    attempts(tmp_path / "pretrain", *["RUN"] * 12)
    # A result, a checkpoint, and of the rest the newest two.
    assert sorted(path.name for path in superseded.iterdir()) == [f"pretrain-{number}" for number in (1, 12, 13, 2)]


def test_a_number_of_an_attempt_that_was_removed_is_given_to_no_other(tmp_path: Path) -> None:
    attempts(tmp_path / "pretrain", "RUN", "RUN", "RUN")
    first, second = (tmp_path / "superseded" / f"pretrain-{number}" for number in (1, 2))
    (first / "pretrain.log").unlink()
    (first / RUN_FILE).unlink()
    first.rmdir()
    assert attempts(tmp_path / "pretrain", "RUN") == [tmp_path / "superseded" / "pretrain-3"]
    assert (second / "pretrain.log").read_text() == "1\n"
