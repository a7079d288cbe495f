"""``titanflow.run``, as far as it can be tried without a training: the rest is in ``tests/docs/test_notebook.py``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_without_training import finish
from tiny_experiment import ROOT, leave_out_fine_tuning, write_tiny_experiment
from watching import wait_for

import titanflow
from titanflow.api import started
from titanflow.api.arguments import LONGEST_WORD, Arguments
from titanflow.common.errors import StageLost
from titanflow.runs.results import GateDecision, PublishResult, write_result

SAVES = """
import signal, sys, time
def leave(number, frame):
    print(f"saved on {number}, safe path {sys.flags.safe_path}", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def follow(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Follows a program in the place of ``titanflow run``."""
    monkeypatch.setattr(started, "PROGRAM", ("-c", program))
    started._follow([])


def test_a_finished_run_is_told_again(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = finish(leave_out_fine_tuning(configs))
    ran = titanflow.run("tiny", configs=configs)
    assert (ran.experiment, ran.run, ran.folder) == ("tiny", "main", plan.folder)
    assert (ran.published, ran.held_back) == (str(plan.folder / "publish" / "model"), "")
    shown = capsys.readouterr().out
    assert "publish   CACHED" in shown
    assert "─ tiny / main ─" in shown


@pytest.mark.parametrize(
    ("status", "published", "held_back"),
    [("published", "place", ""), ("held back", "", "no better"), ("dry run", "", ""), ("proposed", "", "")],
)
def test_it_says_what_became_of_the_model(configs: Path, status: Any, published: str, held_back: str) -> None:
    plan = finish(configs)
    gate = GateDecision(passed=status != "held back", reason="no better")
    write_result(plan.folder / "publish", PublishResult(target="folder", location="place", status=status, gate=gate))
    ran = titanflow.Run.of(plan)
    assert (ran.published, ran.held_back) == (published, held_back)


def test_a_mistake_or_a_stale_stage_is_refused_before_anything_is_started(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(configs)
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("started"))
    with pytest.raises(titanflow.ConfigError, match=r"pretrain\.training\.stepz: unknown key"):
        titanflow.run("tiny", configs=configs, overrides={"pretrain.training.stepz": 3})
    with pytest.raises(titanflow.ConfigError, match="found stages that were made from other inputs"):
        titanflow.run("tiny", configs=configs, overrides={"pretrain.training.steps": 3})


@pytest.mark.parametrize("size", [LONGEST_WORD - 1, LONGEST_WORD])
def test_a_mapping_that_no_command_takes_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    # The quotes and braces around it count.
    given = Arguments.of({"exp_name": "x" * (size - len('{"exp_name": ""}'))}, None, None, None)
    if size >= LONGEST_WORD:
        with pytest.raises(titanflow.ConfigError, match="found a mapping of 131,072 bytes"):
            given.words()
        return
    monkeypatch.setattr(started, "PROGRAM", ("-c", "import sys; sys.exit(len(sys.argv[-1]) != 131071)"))
    started._follow(given.words())


def test_an_error_of_the_command_line_is_raised_and_not_printed(
    configs: Path, prefect_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(prefect_home))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(titanflow.ConfigError, match=r"^PREFECT_API_URL: nothing answers at http://127\.0\.0\.1:9/api"):
        titanflow.run("tiny", configs=configs)
    shown = capsys.readouterr().out
    assert "pretrain  RUN" in shown
    assert "nothing answers" not in shown


@pytest.mark.parametrize(
    ("program", "kind", "said"),
    [
        ("print('error: first\\n    second'); exit(1)", titanflow.StageFailed, "^first\n    second$"),
        ("print('error: one'); exit(2)", titanflow.ConfigError, "^one$"),
        ("exit(3)", titanflow.StageFailed, "ended with status 3; its last lines say why"),
        ("import os; os.kill(os.getpid(), 9)", StageLost, "killed by SIGKILL"),
        ("exit(130)", KeyboardInterrupt, "^$"),
    ],
)
def test_its_end_is_an_exception(
    monkeypatch: pytest.MonkeyPatch, program: str, kind: type[BaseException], said: str
) -> None:
    with pytest.raises(kind, match=said):
        follow(monkeypatch, program)


def test_an_interrupt_is_passed_on_and_the_end_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def show(line: str, **options: object) -> None:
        shown.append(line)
        if line == "ready\n":
            raise KeyboardInterrupt

    monkeypatch.setattr(started, "print", show, raising=False)
    with pytest.raises(KeyboardInterrupt):
        follow(monkeypatch, SAVES)
    assert shown == ["ready\n", "saved on 2, safe path True\n"]


def test_another_end_of_the_caller_ends_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "saved"

    def fail(line: str, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(started, "print", fail, raising=False)
    with pytest.raises(BrokenPipeError):
        follow(
            monkeypatch,
            SAVES.replace("    sys.exit", f"    open({str(mark)!r}, 'w')\n    sys.exit").replace("    print", "    #"),
        )
    assert mark.exists()


def test_a_caller_that_is_killed_leaves_no_run_behind(tmp_path: Path) -> None:
    mark = tmp_path / "saved"
    program = SAVES.replace("    sys.exit", f"    open({str(mark)!r}, 'w')\n    sys.exit").replace("    print", "    #")
    caller = f"from titanflow.api import started\nstarted.PROGRAM = ('-c', {program!r})\nstarted._follow([])"
    with subprocess.Popen([sys.executable, "-c", caller], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    wait_for(mark.exists, "the end of the run")


def test_lines_are_text_without_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in started.OF_A_KERNEL:
        monkeypatch.setenv(name, "1")
    follow(
        monkeypatch,
        "import rich.console as c, os; c.Console().print('[red]Größe[/] ─', len({*os.environ} & {'MPLBACKEND'}))",
    )
    assert capsys.readouterr().out == "Größe ─ 0\n"
