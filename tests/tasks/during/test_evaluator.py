"""What befalls the process that scores a checkpoint, with a program in its place that does as it is told."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from finished_stage import write_checkpoint

from tasks.during import evaluator
from tasks.during.evaluator import During, scored_beside
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.metrics import EVALUATIONS_FILE, append_record, read_metrics

PROGRAM = """
import json, os, signal, sys, yaml
from pathlib import Path
from titanflow.runs.results import EvaluateResult, write_result

folder = Path(sys.argv[1]).parent
models = yaml.safe_load(Path(sys.argv[1]).read_text())["config"]["models"]
(folder.parent / "asked.txt").open("a").write(" ".join(models) + "\\n")
scores = {}
for name, checkpoint in models.items():
    assert (Path(checkpoint) / ".metadata").exists()
    orders = folder.parent / f"order-{name}"
    order = orders.read_text().split() if orders.exists() else []
    if order:
        orders.write_text(" ".join(order[1:]))
        if order[0] == "wait":
            (folder.parent / "waiting").touch()
            signal.pause()
        os.kill(os.getpid(), getattr(signal, order[0]))
    value = folder.parent / f"acc-{name}"
    acc = float(value.read_text()) if value.exists() else 0.5
    scores[name] = {"t": {"acc": acc, "other": float("nan")}}
found = {"scores": scores, "higher_is_better": {"t": {"acc": True}}}
write_result(folder, EvaluateResult(stage="pretrain-during", part="dev", folders={}, digests={}, **found))
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StagePlan:
    """A training of 12 steps that saves every two, and is scored every four."""
    program = tmp_path / "modules" / "scores_as_told.py"
    program.parent.mkdir()
    program.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(evaluator, "MODULE", "scores_as_told")
    root = Path(evaluator.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{program.parent}{os.pathsep}{root}")
    config = {"during": {"every": 4, "device": "cpu", "limit": 2}, "training": {"steps": 12}}
    common = {"experiment": "tiny", "run": "main"}
    run = StageRun(stage="pretrain", folder=tmp_path / "pretrain", config=config, **common)
    during = StageRun(
        stage="evaluate", folder=run.folder / "during", config={"tasks": ["t"], "limit": 2, "models": {}}, **common
    )
    run.write()
    return StagePlan("pretrain", "RUN", "new", run, during=during)


def during_of(plan: StagePlan) -> During:
    return During(plan, {}, logging.getLogger("test"))


def save(plan: StagePlan, *steps: int) -> None:
    for step in steps:
        write_checkpoint(plan.run.folder / "checkpoint" / f"step-{step}")


def until_it_waits(plan: StagePlan, during: During) -> None:
    """Goes on until a checkpoint is being scored that waits for its end."""
    deadline = time.monotonic() + 120
    while not (plan.run.folder / "waiting").exists():
        during()
        assert during._process is not None
        during._process.wait(0.05)
        assert time.monotonic() < deadline


def asked(plan: StagePlan) -> list[str]:
    """What each process scored."""
    return (plan.run.folder / "asked.txt").read_text(encoding="utf-8").splitlines()


def scored(plan: StagePlan) -> dict[int, str]:
    """By step ``scored``, or why it wasn't."""
    return {one["step"]: one.get("failed", "scored") for one in read_metrics(plan.run.folder / EVALUATIONS_FILE)}


def test_each_wanted_checkpoint_is_scored_once_oldest_first(plan: StagePlan) -> None:
    save(plan, 2, 4, 6, 8, 10, 12)
    during = during_of(plan)
    during.finish()
    assert asked(plan) == ["step-4 step-8 step-12"]
    assert scored(plan) == {4: "scored", 8: "scored", 12: "scored"}
    record = read_metrics(plan.run.folder / EVALUATIONS_FILE)[0]
    assert record["scores"] == {"t": {"acc": 0.5}}
    assert not list(plan.during.folder.glob("step-*"))
    assert (plan.run.folder / "checkpoint" / "step-4" / ".metadata").exists()


def test_a_checkpoint_that_retention_removes_is_scored_all_the_same(plan: StagePlan) -> None:
    save(plan, 4)
    during = during_of(plan)
    (plan.run.folder / "order-step-4").write_text("wait", encoding="utf-8")
    during()
    shutil.rmtree(plan.run.folder / "checkpoint" / "step-4")
    save(plan, 8, 12)
    during()
    until_it_waits(plan, during)
    os.kill(during._process.pid, signal.SIGKILL)
    during.finish()
    assert scored(plan) == {4: "scored", 8: "scored", 12: "scored"}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_one_that_is_killed_once_is_tried_again_and_twice_noted(plan: StagePlan, name: str) -> None:
    save(plan, 4, 8, 12)
    (plan.run.folder / "order-step-4").write_text(name, encoding="utf-8")
    (plan.run.folder / "order-step-8").write_text(f"{name} {name}", encoding="utf-8")
    during_of(plan).finish()
    # Each alone, because any of them may have ended the process.
    assert asked(plan) == ["step-4 step-8 step-12", "step-4", "step-8", "step-8", "step-12"]
    found = scored(plan)
    assert (found[4], found[12]) == ("scored", "scored")
    assert name in found[8]
    assert not list(plan.during.folder.glob("step-*"))


def test_a_run_that_was_killed_goes_on_with_what_is_left(plan: StagePlan) -> None:
    save(plan, 4, 8)
    (plan.run.folder / "order-step-8").write_text("wait", encoding="utf-8")
    with scored_beside(plan, {}, logging.getLogger("test")) as during:
        until_it_waits(plan, during)
        process = during._process
    assert process.returncode == -signal.SIGTERM
    # The scores of a step that were there are kept in the evaluation's own files.
    assert scored(plan) == {}
    # Meanwhile retention removed what was held, a kill left one half held and half a line.
    shutil.rmtree(plan.run.folder / "checkpoint")
    (plan.during.folder / "begun-step-12").mkdir()
    with (plan.run.folder / EVALUATIONS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "sco')
    save(plan, 12)
    again = during_of(plan)
    again.finish()
    assert asked(plan) == ["step-4 step-8", "step-4 step-8 step-12"]
    assert scored(plan) == {4: "scored", 8: "scored", 12: "scored"}
    assert not (plan.during.folder / "begun-step-12").exists()


def test_a_checkpoint_that_was_gone_too_soon_is_noted(plan: StagePlan) -> None:
    save(plan, 8, 12)
    during_of(plan).finish()
    assert asked(plan) == ["step-8 step-12"]
    assert "keep_latest_k" in scored(plan)[4]


def test_other_tasks_are_scored_although_the_old_ones_were(plan: StagePlan) -> None:
    save(plan, 4, 8, 12)
    for step in (4, 8):
        append_record(plan.run.folder / EVALUATIONS_FILE, {"step": step, "tasks": ["u"], "limit": 2, "scores": {}})
    append_record(plan.run.folder / EVALUATIONS_FILE, {"step": 12, "tasks": ["t"], "limit": 2, "scores": {}})
    during_of(plan).finish()
    assert asked(plan) == ["step-4 step-8"]


def test_a_disk_that_takes_nothing_more_ends_no_stage(plan: StagePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    save(plan, 4)

    def full(*unused: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluator, "append_record", full)
    during_of(plan).finish()
    assert scored(plan) == {}


def test_nothing_is_scored_where_nothing_is_asked(plan: StagePlan) -> None:
    plan.during = None
    with scored_beside(plan, {}, logging.getLogger("test")) as during:
        assert during is None


def test_lines_are_whole_json(plan: StagePlan) -> None:
    save(plan, 4, 8, 12)
    during_of(plan).finish()
    for line in (plan.run.folder / EVALUATIONS_FILE).read_text(encoding="utf-8").splitlines():
        json.loads(line)


def held(plan: StagePlan) -> list[str]:
    return sorted(path.name for path in plan.during.folder.glob("*step-*"))


def test_the_best_so_far_is_held_whatever_retention_does(plan: StagePlan) -> None:
    plan.best = "dev/t/acc"
    for step, acc in ((4, 0.6), (8, 0.7), (12, 0.7)):
        (plan.run.folder / f"acc-step-{step}").write_text(str(acc), encoding="utf-8")
    save(plan, 4)
    during = during_of(plan)
    during()
    while during._process is not None:
        during._process.wait(0.05)
        during()
    assert held(plan) == ["step-4"]
    shutil.rmtree(plan.run.folder / "checkpoint" / "step-4")
    save(plan, 8, 12)
    during.finish()
    # Of the two best ones the earlier.
    assert held(plan) == ["step-8"]


def test_a_run_that_was_killed_holds_the_best_alone(plan: StagePlan) -> None:
    save(plan, 4, 8, 12)
    during_of(plan).finish()
    assert held(plan) == []
    # The next start asks for the best, of which the scores are there; a kill left one held that is scored.
    write_checkpoint(plan.during.folder / "step-12")
    plan.best = "dev/t/acc"
    during_of(plan).finish()
    assert asked(plan) == ["step-4 step-8 step-12"]
    assert held(plan) == ["step-4"]
