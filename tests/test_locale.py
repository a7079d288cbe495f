"""Names and texts are UTF-8 in whatever locale; a terminal is written to, and read from, in its own encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment
from typer.testing import CliRunner

from tasks.process.process import started
from titanflow.cli.main import app
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.config.overrides import parameter_settings, parse_settings

ROOT = Path(__file__).parent.parent
NOT_UTF8 = os.fsdecode(b"gr\xf6")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""The poorest locale there is, and Python's own ways out of it barred."""


@pytest.fixture(params=["ascii", "iso8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What a shell in that locale has in its environment."""
    if request.param == "ascii":
        return {**os.environ, **ASCII}
    made = tmp_path / "locales" / "en_US.ISO-8859-1"
    made.parent.mkdir()
    try:
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(made)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system has no sources of locales")
    return {**os.environ, "LC_ALL": made.name, "LOCPATH": str(made.parent)}


def titanflow(locale: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environ = {**locale, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "titanflow.cli.main", *arguments], capture_output=True, env=environ)


def encoding(locale: dict[str, str]) -> str:
    code = "import sys; print(sys.stdout.encoding)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=locale, check=True)
    return done.stdout.strip()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """The tiny experiment in a folder, on files and with texts whose names neither encoding has whole."""
    root = tmp_path / "größe 日本"
    configs = write_tiny_experiment(root)
    for data, file, name in (("text", "text.txt", "Größe 日本.txt"), ("chats", "chats.jsonl", "chäts 日本.jsonl")):
        text = (root / file).read_text(encoding="utf-8").replace("house", "Häuschen").replace("bird", "鳥")
        (root / name).write_text(text, encoding="utf-8")
        kind = "chat" if data == "chats" else data
        (configs / "data" / f"{data}.yaml").write_text(f"kind: {kind}\npath: {root / name}\n", encoding="utf-8")
    return configs


def test_a_plan(locale: dict[str, str], odd: Path) -> None:
    done = titanflow(locale, "plan", "tiny", "--configs", str(odd))
    assert done.returncode == 0, done.stderr
    folder = str(odd.parent / "runs" / "tiny" / "main")
    assert folder.encode(encoding(locale), errors="replace") in done.stdout
    as_json = titanflow(locale, "plan", "tiny", "--configs", str(odd), "--json")
    assert json.loads(as_json.stdout)["folder"] == folder


def test_the_values_of_a_config(locale: dict[str, str], odd: Path) -> None:
    done = titanflow(locale, "config", "tiny", "--configs", str(odd), "--module", "sft", "--origin")
    assert done.returncode == 0, done.stderr
    assert str(odd.parent / "chäts 日本.jsonl").encode(encoding(locale), errors="replace") in done.stdout
    assert f"{odd / 'data' / 'chats.yaml'}:2".encode(encoding(locale), errors="replace") in done.stdout


def test_the_masks_of_chats(locale: dict[str, str], odd: Path) -> None:
    done = titanflow(locale, "masks", "tiny", "--configs", str(odd), "--rows", "9")
    assert done.returncode == 0, done.stderr
    assert "What colour is the Häuschen?".encode(encoding(locale), errors="replace") in done.stdout


def test_a_program_that_shares_the_terminal(locale: dict[str, str], tmp_path: Path) -> None:
    done = titanflow(locale, "verify", str(tmp_path / "größe"))
    assert done.returncode == 2
    assert "größe".encode(encoding(locale), errors="backslashreplace") in done.stderr


def test_help(locale: dict[str, str]) -> None:
    done = titanflow(locale, "--help")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_flow_that_somebody_else_starts_is_refused(odd: Path) -> None:
    code = f"from titanflow.planning.plan import make_plan; make_plan('tiny', {str(odd)!a})"
    environ = {**os.environ, **ASCII, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environ, check=False)
    assert b"ConfigError: PYTHONUTF8: this process takes the names of files for ascii" in done.stderr


def test_a_log_is_utf8_whatever_the_terminal_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1:replace")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    with started([sys.executable, "-c", r"print('gr\u00f6\u00dfe')"], tmp_path / "log") as process:
        assert process.wait(60) == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "größe\n"


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2, done.output
    return done.stderr


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = odd.rename(tmp_path / NOT_UTF8)
    assert r"gr\udcf6/experiments/tiny.yaml" in refused("plan", "tiny", "--configs", str(copy))
    configs = copy.rename(tmp_path / "configs")
    assert "--set" not in refused("plan", "tiny", "--configs", str(configs), "--set", f"workspace={NOT_UTF8}")
    monkeypatch.setenv("PLACE", NOT_UTF8)
    file = configs / "experiments" / "tiny.yaml"
    text = file.read_text(encoding="utf-8").replace(f"{odd}/evals", "evals")
    file.write_text(text.replace("exp_name: tiny", "user_name: ${PLACE}"), encoding="utf-8")
    assert r"tiny.yaml:1 ($PLACE): user_name: found 'gr\udcf6'" in refused("config", "tiny", "--configs", str(configs))
    monkeypatch.setenv("PLACE", "grö")
    (tmp_path / NOT_UTF8).mkdir()
    monkeypatch.chdir(tmp_path / NOT_UTF8)
    with pytest.raises(ConfigError, match="workspace: found"):
        load_experiment("tiny", str(configs), parse_settings(["workspace=runs"]))
    with pytest.raises(ConfigError, match=r"pretrain\.data\.path: found"):
        parameter_settings({"pretrain.data.path": NOT_UTF8})
