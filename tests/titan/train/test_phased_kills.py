"""A real training on a mixture with phases, killed about their border: equal to the bit to one left in peace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dies_in_step
import pytest
from tiny_stages import SEQ_LEN, Workbench, records, write_text_rows

from flows.resume_proof.comparison import compare_batches, compare_metrics
from titanflow.common.digests import file_digest
from titanflow.data.mixture import write_mixture
from titanflow.runs.contract import METRICS_FILE, PreparedData, StageRun
from titanflow.runs.metrics import RECORD_BATCHES, read_metrics
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

STEPS, BORDER = 12, 6
"""Step 6 is the first phase's last one."""
SETTINGS: dict[str, Any] = {
    "training": {"steps": STEPS},
    "lr_scheduler": {"total_steps": None},
    "validation": {"enable": True, "freq": BORDER, "steps": 2, "local_batch_size": 4},
}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Rows of two sources, the second with few rows: its epochs end in the second phase."""
    folder = tmp_path_factory.mktemp("phased")
    members = {
        "web": write_text_rows(folder / "web", 200 * SEQ_LEN, seed=5),
        "books": write_text_rows(folder / "books", 20 * SEQ_LEN, seed=6),
    }
    phases = [
        {"until": BORDER / STEPS, "weights": {"web": 7, "books": 1}},
        {"until": 1.0, "weights": {"web": 1, "books": 3}},
    ]
    spec = {"strategy": "interleave", "weights": "rows", "stop": "first_exhausted", "phases": phases}
    sources = {name: {"weight": 1.0, "epochs": 1.0} for name in members}
    (folder / "mixture").mkdir()
    write_mixture(folder / "mixture", "mixture", "", {**spec, "sources": sources}, members)
    return folder / "mixture"


@pytest.fixture(scope="module")
def whole(shared_bench: Workbench, mixture: Path) -> StageRun:
    run = stage(shared_bench, "phased", mixture, interval=4)
    assert shared_bench.run(run, env={RECORD_BATCHES: "1"}) == 0, log_of(run)
    return run


def stage(bench: Workbench, name: str, mixture: Path, interval: int) -> StageRun:
    rows = PreparedData(train=mixture, validation=bench.data / "validation")
    return bench.stage(f"{name}/pretrain", SETTINGS, {"checkpoint": {"interval": interval}}, data=rows)


def log_of(run: StageRun) -> str:
    return (run.folder / "log.txt").read_text(encoding="utf-8")


def begun(run: StageRun) -> list[int]:
    """The first step of each start."""
    return [int(step) for step in re.findall(r"Training starts at step (\d+)$", log_of(run), re.M)]


def weights(run: StageRun) -> dict[str, str]:
    return {path.name: file_digest(path) for path in read_result(run.folder).checkpoint.glob("*.distcp")}


@pytest.mark.parametrize(
    ("interval", "deaths", "starts"),
    [
        (1, range(BORDER - 1, BORDER + 3), [1, *range(BORDER - 1, BORDER + 3)]),
        # Each start goes back to step 5, and over the border again.
        (4, [BORDER, BORDER + 1, BORDER + 1], [1, 5, 5, 5]),
    ],
    ids=["resumed about the border", "resumed before it"],
)
def test_killed_about_a_border_it_is_equal_to_the_bit(
    bench: Workbench, mixture: Path, whole: StageRun, interval: int, deaths: list[int], starts: list[int]
) -> None:
    run = stage(bench, "killed", mixture, interval)
    for step in deaths:
        env = {RECORD_BATCHES: "1", dies_in_step.DIES_IN: str(step)}
        assert bench.run(run, script=dies_in_step.__file__, env=env) == -9, log_of(run)
        assert max(records(run)) == step
    assert bench.run(run, env={RECORD_BATCHES: "1"}) == 0, log_of(run)
    assert begun(run) == starts
    checks = [*compare_metrics("killed", whole.folder, run.folder), compare_batches("k", whole.folder, run.folder)]
    assert [check for check in checks if not check.passed] == []
    assert len(records(run)) == STEPS
    assert weights(run) == weights(whole) != {}


def test_two_ranks_read_the_same_rows_and_each_phase_has_its_shares(
    bench: Workbench, mixture: Path, whole: StageRun
) -> None:
    run = stage(bench, "two", mixture, interval=4)
    assert bench.run(run, ranks=2, env={RECORD_BATCHES: "1"}) == 0, log_of(run)
    assert compare_batches("two", whole.folder, run.folder).passed
    batch = run.config["training"]["global_batch_size"]
    steps = [record for record in read_metrics(run.folder / METRICS_FILE) if "loss" in record]
    rows = {one["step"]: one["step"] * batch * one["shares"]["books"] for one in steps if one["step"] % BORDER == 0}
    assert rows == pytest.approx({BORDER: BORDER * batch / 8, STEPS: BORDER * batch / 8 + BORDER * batch * 3 / 4})
