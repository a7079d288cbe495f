from pathlib import Path

import pytest
from rich.console import Console

from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.planning.view import plan_markdown, plan_table, stale_lines
from titanflow.runs.changes import Change
from titanflow.runs.contract import StageRun


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def stage(name: str, state: str, reason: str, changes: list[Change]) -> StagePlan:
        run = StageRun(stage=name, experiment="tiny", run="main", folder=tmp_path / name)  # type: ignore[arg-type]
        return StagePlan(name, state, reason, run, changes=changes)  # type: ignore[arg-type]

    changes = [
        Change(key="pretrain.optimizer.lr", old=0.01, new=0.02, origin="tiny.yaml:14"),
        Change(key="pretrain.data.path: a|b.txt", old=None, new="sha256 0a1b, 3 bytes"),
    ]
    stages = [
        stage("prepare", "CACHED", "6 prepared", []),
        stage("pretrain", "STALE", "2 values changed: pretrain.optimizer.lr, …", changes),
        stage("sft", "STALE", "pretrain changed", [Change(key="parent.pretrain", old="1", new="2")]),
    ]
    return Plan("tiny", "main", tmp_path, stages, config=None)  # type: ignore[arg-type]


def shown(plan: Plan, width: int) -> list[str]:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(plan_table(plan))
    return console.export_text().splitlines()


def test_below_a_stage_stand_its_changes(plan: Plan) -> None:
    lines = [line.rstrip() for line in shown(plan, 120)]
    assert lines[0] == "prepare   CACHED  6 prepared"
    assert lines[1] == "pretrain  STALE   2 values changed: pretrain.optimizer.lr, …"
    assert lines[2].split() == ["pretrain.optimizer.lr", "0.01", "→", "0.02", "(tiny.yaml:14)"]
    assert lines[3].endswith("pretrain.data.path: a|b.txt  – → sha256 0a1b, 3 bytes")
    assert lines[2].index("0.01") == lines[3].index("–")
    assert lines[4:] == ["sft       STALE   pretrain changed"]


def test_a_narrow_terminal_loses_nothing(plan: Plan) -> None:
    lines = shown(plan, 50)
    assert all(len(line) <= 50 for line in lines)
    text = "".join("".join(lines).split())
    assert all(part in text for part in ("sft", "STALE", "0.02", "tiny"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, 3, "– → 3"),
        ("linear", "cosine", "linear → cosine"),
        (["a"], [], '["a"] → []'),
        ("Größe", ["Größe"], 'Größe → ["Größe"]'),
        ("x" * 500 + "old", "x" * 500 + "new", "x" * 500 + "old → " + "x" * 500 + "new"),
        ("a\n" * 40, None, "a\\n" * 40 + " → –"),
    ],
)
def test_a_value_is_shown_whole_on_one_line(plan: Plan, old: object, new: object, expected: str) -> None:
    plan.stages[1].changes = [Change(key="k", old=old, new=new)]
    assert shown(plan, 5000)[2].rstrip().endswith(f" k  {expected}")
    assert f"pretrain: k: {expected}" in stale_lines(plan.stages[1])


def test_the_artifact_is_a_table_whatever_stands_in_it(plan: Plan) -> None:
    text = plan_markdown(plan)
    assert "| pretrain | STALE | 2 values changed: pretrain.optimizer.lr, … |" in text
    assert "| pretrain | pretrain.optimizer.lr | 0.01 | 0.02 | tiny.yaml:14 |" in text
    assert "a\\|b.txt" in text
    assert "parent." not in text
