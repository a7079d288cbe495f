from dataclasses import asdict
from pathlib import Path

import pytest

from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.job_checks import pod_problems
from titanflow.runs.contract import PreparedData, StageRun

HERE, ELSEWHERE = Path("/shared/runs/e/main"), Path("/home/me/runs/e/main")


def found(folder: Path = HERE, **reads: object) -> list[str]:
    launcher = asdict(Launcher()) | {"kind": "kubernetes"}
    launcher["kubernetes"] |= {"image": "titanflow", "volumes": {"/shared": "data", "/scratch": "fast"}}
    run = StageRun(
        stage="sft", experiment="e", run="main", folder=folder / "sft", config={"launcher": launcher}, **reads
    )
    return [problem.message for problem in pod_problems(run) if problem.key.endswith("volumes")]


def test_what_lies_on_a_volume_is_seen() -> None:
    assert found(tokenizer=HERE / "tokenizer", base=Path("/scratch/base"), data=PreparedData(train=HERE)) == []


@pytest.mark.parametrize(
    "reads",
    [
        {"tokenizer": ELSEWHERE},
        {"base": ELSEWHERE},
        {"data": PreparedData(train=ELSEWHERE)},
        {"data": PreparedData(train=HERE, validation=ELSEWHERE)},
    ],
)
def test_what_a_stage_reads_from_no_volume_is_named(reads: dict[str, object]) -> None:
    assert found(**reads) == [f"found /shared, /scratch, and the stage reads {ELSEWHERE}"]


def test_a_workspace_on_no_volume_is_named_first() -> None:
    told = found(ELSEWHERE, tokenizer=ELSEWHERE / "tokenizer")
    assert told == [f"found /shared, /scratch, and the run's folder is {ELSEWHERE}/sft"]
