"""A run that is killed, with a small program in place of a training: the driver's part of a resume proof.

The program takes a step when its driver has looked at the one before, and the driver's clock counts its looks: how
busy the machine is changes nothing.
"""

import itertools
import json
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from watching import PATIENCE, STAYS

from flows.resume_proof import killed_run as module
from flows.resume_proof.comparison import compare_metrics
from flows.resume_proof.kill_points import KillPoint, Phase, Position, draw
from flows.resume_proof.killed_run import KilledRun
from flows.resume_proof.run_watch import RunWatch
from tasks.process.process import Process
from titanflow.common.errors import StageFailed

STEPS = 30
# Trains on row 7 * step mod 31 from its newest checkpoint on. "forgetful" counts its rows from its own start.
PROGRAM = f"""
    import json, sys, time
    from pathlib import Path
    folder, flaw = Path(sys.argv[1]) / "pretrain", sys.argv[2]
    looks = Path(sys.argv[1]).with_suffix(".looks")
    def be_looked_at():
        # A look may have begun before the change, and what the driver does after a look ends with the next.
        wanted = looks.exists() and count() + 3
        while wanted and count() < wanted:
            time.sleep(0.001)
    def count():
        while not (text := looks.read_text()):
            pass
        return int(text)
    folder.mkdir(parents=True, exist_ok=True)
    done = [int(path.parent.name[5:]) for path in folder.glob("checkpoint/step-*/.metadata")]
    begun = step = max(done, default=0)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    if flaw != "repeating":
        lines = [line for line in lines if json.loads(line)["step"] <= step]
    metrics.write_text("".join(line + "\\n" for line in lines))
    with (folder / "pretrain.log").open("a") as log:
        log.write("$ train\\nTraining starts at step " + str(step + 1) + "\\n")
    published = Path(sys.argv[1]) / "published" / "publish" / "titanflow.json"
    published.parent.mkdir(parents=True, exist_ok=True)
    if flaw == "publishing":
        published.unlink(missing_ok=True)
        published.write_text("a model")
    while step < {STEPS}:
        step += 1
        row = 7 * (step - begun if flaw == "forgetful" else step) % 31
        with metrics.open("a") as file:
            file.write(json.dumps({{"step": step, "loss": 1 / (1 + row)}}) + "\\n")
        if step % 5 == 0:
            checkpoint = folder / "checkpoint" / f"step-{{step}}"
            checkpoint.mkdir(parents=True, exist_ok=True)
            be_looked_at()
            (checkpoint / ".metadata").touch()
        be_looked_at()
    if not published.exists():
        published.write_text("a model")
    be_looked_at()
    if flaw == "publishing" and not (folder / "once").exists():
        (folder / "once").touch()
        time.sleep({STAYS})
    (folder / "result.json").write_text("{{}}")
"""
PHASES = [Phase("pretrain", "train", 1.0, STEPS, 5), Phase("pretrain", "save", 0.1, STEPS, 5)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


def command(program: Path, folder: Path, flaw: str) -> list[str]:
    return [sys.executable, str(program), str(folder), flaw, "titanflow.cli.main"]


class CountedWatch(RunWatch):
    """Tells the program how often it was looked at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["pretrain", "publish"], {"pretrain": STEPS})
        self.looks, self.counted = folder.with_suffix(".looks"), itertools.count(1)
        self.looks.write_text("0")

    def position(self) -> Position:
        found = super().position()
        self.looks.write_text(str(next(self.counted)))
        return found


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's time: some milliseconds for each time that it asks."""
    ticks = itertools.count(step=0.002)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=time.sleep))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


def killed_run(program: Path, points: list[KillPoint], flaw: str = "") -> KilledRun:
    folder = program.parent / "killed"
    watch = CountedWatch(folder)
    log = program.parent / "log"
    return KilledRun(watch, points, lambda start: command(program, folder, flaw), log, {}, folder / "published")


@pytest.fixture
def right(program: Path) -> Path:
    """The run that is left in peace."""
    folder = program.parent / "right"
    with (program.parent / "right.log").open("wb") as output:
        assert Process(command(program, folder, ""), output).wait(PATIENCE) == 0
    return folder / "pretrain"


def is_equal(right: Path, run: KilledRun) -> bool:
    return all(check.passed for check in compare_metrics("pretrain", right, run.watch.folder / "pretrain"))


def test_a_run_that_resumes_is_the_uninterrupted_one(program: Path, right: Path) -> None:
    run = killed_run(program, draw(PHASES, 4, seed=1))
    kills = run.finish()
    assert (len(kills), run.starts, run.points) == (4, 5, [])
    assert is_equal(right, run)
    assert run.published_once().passed
    assert run.left_nothing().passed
    for kill in kills:
        assert kill.stage == "pretrain"
        assert kill.resumed_from % 5 == 0
        assert 0 <= kill.redone <= kill.step - kill.resumed_from < 10
        assert kill.back > 0
    assert any(kill.moment == "save" for kill in kills)
    assert json.loads(json.dumps(kills[0].as_json()))["kill"] == 1


@pytest.mark.parametrize("flaw", ["forgetful", "repeating"])
def test_a_run_that_resumes_wrongly_is_another(program: Path, right: Path, flaw: str) -> None:
    """What a proof is for: an order of data that depends on the start, and a history with steps that stand twice."""
    run = killed_run(program, [KillPoint("pretrain", 0, "train", 8, 0.0, alone=False)], flaw)
    (kill,) = run.finish()
    assert kill.redone
    assert not is_equal(right, run)


def test_what_is_published_anew_is_counted(program: Path) -> None:
    run = killed_run(program, [KillPoint("pretrain", 0, "export", 0, 0.5, alone=True)], "publishing")
    (kill,) = run.finish()
    assert (kill.killed, kill.moment) == ("flow", "export")
    assert run.published_once().found == "publish published 2 times"


def test_a_run_that_fails_by_itself_is_no_proof(program: Path) -> None:
    program.write_text("raise SystemExit('no such data')")
    with pytest.raises(StageFailed, match=r"start 1 of the killed run ended with 1: (.|\n)*no such data"):
        killed_run(program, []).finish()
