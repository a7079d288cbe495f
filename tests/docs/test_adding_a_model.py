"""The page is followed: its files are written into an empty folder, and its commands run there."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from titanflow.runs.metrics import read_metrics

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-model.md"
FILE = re.compile(
    r"^### `(?P<name>[^`]+)`\n+(?:<!-- [^\n]* -->\n)?```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"python": [sys.executable], "titanflow": [sys.executable, "-m", "titanflow.cli.main"]}


@dataclass(frozen=True)
class Followed:
    """The folder, and what each command printed."""

    folder: Path
    printed: dict[str, str]
    prefect: dict[str, str]

    def run(self, command: str) -> str:
        """Runs a command in the folder; what it printed, errors after the rest."""
        program, *arguments = shlex.split(command)
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": path, "WANDB_MODE": "disabled", **self.prefect}
        done = subprocess.run(
            [*PROGRAMS[program], *arguments],
            cwd=self.folder,
            env={**os.environ, **own, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path, api: str) -> Followed:
    folder, page = tmp_path_factory.mktemp("followed"), PAGE.read_text()
    for found in FILE.finditer(page):
        path = folder / found["name"]
        assert not path.exists(), "a file of this project is in the way"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found["text"])
    followed = Followed(folder, {}, {"PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": api})
    for block in COMMANDS.findall(page):
        for command in block.splitlines():
            followed.printed[command] = followed.run(command)
    return followed


def test_the_folder_is_as_the_page_shows_it(followed: Followed) -> None:
    tree = next(block for block in re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    shown, above = [], ""
    for line in tree.splitlines():
        name = line.split()[0]
        above = name if not line.startswith(" ") and name.endswith("/") else above if line.startswith(" ") else ""
        shown += [] if name.endswith("/") else [above + name]
    written = [found["name"] for found in FILE.finditer(PAGE.read_text())]
    assert sorted(shown) == sorted({*written} - {"load.py"})


def test_the_proof_is_one(followed: Followed) -> None:
    assert "5 passed" in followed.printed["python -m pytest tests/test_olmo2.py"]


def test_the_plan_takes_the_family_as_it_is_named(followed: Followed) -> None:
    printed = followed.printed["titanflow plan olmo2"]
    assert re.search(r"pretrain\s+RUN\s+new", printed)
    assert "warning" not in printed


def test_two_steps_are_trained_and_exported(followed: Followed) -> None:
    stage = followed.folder / "runs" / "olmo2" / "main" / "pretrain"
    result = json.loads((stage / "result.json").read_text())
    assert (result["step"], result["model_name"], result["flavor"]) == (2, "olmo2", "small")
    assert result["parity"]["relative_error"] < 1e-4
    assert result["parity"]["greedy_agreement"] == 1
    assert (stage / "export" / "model.safetensors").is_file()


def test_a_checkpoint_is_exported_by_hand_as_the_stage_exported_it(followed: Followed) -> None:
    theirs, ours = followed.folder / "runs/olmo2/main/pretrain/export", followed.folder / "olmo2-small"
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
    assert all((ours / path.name).read_bytes() == path.read_bytes() for path in theirs.iterdir())


def test_transformers_loads_it(followed: Followed) -> None:
    assert followed.printed["python load.py"].startswith("Olmo2ForCausalLM 'class Attention")


def test_the_losses_are_those_of_transformers(followed: Followed) -> None:
    printed = followed.printed["titanflow prove-losses runs/olmo2_losses/main/pretrain"]
    assert "equal within 0.0001" in printed
    losses = read_metrics(followed.folder / "runs" / "olmo2_losses" / "main" / "pretrain" / "metrics.jsonl")
    assert [record["step"] for record in losses] == list(range(1, 51))
    assert losses[-1]["loss"] < losses[0]["loss"] - 0.5
    largest = re.search(r"50 steps, the largest difference is (\S+) nats", printed)
    assert largest is not None
    assert float(largest[1]) < 1e-4


def test_the_benchmark_is_a_row_of_a_table(followed: Followed) -> None:
    head, _, row = followed.printed["titanflow benchmark runs/olmo2_losses/main/pretrain"].splitlines()
    shown = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert (shown["model"], shown["techniques"], shown["steps"]) == ("olmo2 small", "float32, selective AC", "50")
    assert all(shown[name] not in ("–", "") for name in ("parameters", "tokens/s a device", "memory a rank", "loss"))


def test_an_edit_of_the_family_is_trained(followed: Followed) -> None:
    assert re.search(r"pretrain\s+CACHED", followed.run("titanflow plan olmo2"))
    path = followed.folder / "olmo2" / "model" / "model.py"
    path.write_text(path.read_text() + "# an edit\n")
    assert re.search(
        r"pretrain\s+STALE\s+2 values changed: .*code\.olmo2/model/model\.py", followed.run("titanflow plan olmo2")
    )


def test_what_the_page_points_at_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
