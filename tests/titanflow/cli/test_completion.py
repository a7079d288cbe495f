"""What a shell is told to complete, in the words in which typer's scripts ask."""

from pathlib import Path

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment
from typer.testing import CliRunner

from titanflow.cli.main import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, a file that is none, and a tree of configs whose experiment has two runs."""
    folder = tmp_path_factory.mktemp("completed")
    configs = write_tiny_experiment(folder)
    for run in ("main", "second"):
        finish(configs, run=run, upto="prepare")
    (folder / "mine.yaml").write_text("modules: {}\n")
    (folder / "modest.yaml").write_text("training: {steps: 1}\n")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def completed(line: str, shell: str = "bash") -> list[str]:
    """What is offered for the last word of a line, which may be empty."""
    count = str(len(line.split(" ")) - 1)
    asked = {"bash": {"COMP_WORDS": line, "COMP_CWORD": count}, "zsh": {"_TYPER_COMPLETE_ARGS": line}}[shell]
    environ = {"_TITANFLOW_COMPLETE": f"complete_{shell}", **asked}
    return CliRunner().invoke(app, [], env=environ, prog_name="titanflow").stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("titanflow pl", ["plan"]),
        ("titanflow run --on", ["--only", "--on-stale"]),
        ("titanflow run m", ["mine"]),
        ("titanflow run t", ["tiny"]),
        ("titanflow run hub_l", ["hub_lora"]),
        ("titanflow serve --experiment stdlib_", ["stdlib_nightly"]),
        ("titanflow report tiny --run ", ["main", "second"]),
        ("titanflow report tiny --run s", ["second"]),
        ("titanflow report none --run ", []),
        ("titanflow masks tiny --module s", ["sft"]),
        ("titanflow prove-resume --stage e", ["evaluate"]),
        ("titanflow run tiny --set sft.training.st", ["sft.training.steps="]),
        ("titanflow run tiny --on-stale k", ["keep"]),
        ("titanflow run --configs nowhere t", []),
    ],
)
def test_names_and_options_are_completed(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


def test_zsh_is_told_the_same() -> None:
    assert "second" in " ".join(completed("titanflow report tiny --run s", "zsh"))


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_exit_statuses(option: str) -> None:
    shown = " ".join(CliRunner().invoke(app, [option]).stdout.split())
    assert "Exit status: 0 success, 1 a run, a check or a proof failed, 2 bad input" in shown
