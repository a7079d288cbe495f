"""``titanflow init``: one file, never over another, and what is printed."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from own_files import faq, messages, sharegpt, wiki
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.draft import trial
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan

pytestmark = pytest.mark.slow

runner = CliRunner()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    wiki(tmp_path)
    sharegpt(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_writes_one_file_and_shows_its_plan(folder: Path) -> None:
    before = files(folder)
    done = runner.invoke(app, ["init", "my", "--text", "wiki.txt", "--chats", "chats.json"])
    assert done.exit_code == 0, done.stderr
    assert files(folder) == sorted([*before, "my.yaml"])
    assert "titanflow run my" in done.stdout
    for part in ("wiki.txt", "JSON list", "conversations → messages", "user, assistant", "forecast", "pretrain  RUN"):
        assert part in done.stderr
    planned = runner.invoke(app, ["plan", "my"])
    assert planned.exit_code == 0, planned.stderr
    assert "publish   RUN" in planned.stdout


def test_it_sends_an_editor_to_the_schema_that_is_there(folder: Path) -> None:
    command = ["init", "my", "--text", "wiki.txt", "--print"]
    assert "yaml-language-server" not in runner.invoke(app, command).stdout
    schema = runner.invoke(app, ["config", "--json-schema", "experiment"]).stdout
    (folder / "experiment.schema.json").write_text(schema, encoding="utf-8")
    printed = runner.invoke(app, command).stdout
    assert printed.startswith("# yaml-language-server: $schema=experiment.schema.json\n")
    assert list(Draft202012Validator(json.loads(schema)).iter_errors(yaml.safe_load(printed))) == []


def test_it_plans_once_and_warns_of_what_it_wrote(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def plan_and_warn(experiment: str, **options: bool) -> Plan:
        plan = make_plan(experiment, **options)
        plan.config.warnings.append(f"{experiment}:3: too bold")
        planned.append(experiment)
        return plan

    monkeypatch.setattr(trial, "make_plan", plan_and_warn)
    done = runner.invoke(app, ["init", "my", "--text", "wiki.txt", "--chats", "chats.json"])
    assert len(planned) == 1
    assert "warning: my.yaml:3: too bold" in done.stderr


def test_it_prints_the_same_and_writes_nothing(folder: Path) -> None:
    before = files(folder)
    command = ["init", "my", "--text", "wiki.txt", "--chats", "chats.json"]
    printed = runner.invoke(app, [*command, "--print"])
    assert printed.exit_code == 0, printed.stderr
    assert files(folder) == before
    runner.invoke(app, command)
    assert (folder / "my.yaml").read_text(encoding="utf-8") == printed.stdout


def test_a_file_that_is_there_stays(folder: Path) -> None:
    (folder / "my.yaml").write_text("mine\n", encoding="utf-8")
    done = runner.invoke(app, ["init", "my", "--text", "wiki.txt"])
    assert done.exit_code == 2
    assert "NAME: my.yaml is there already" in done.stderr
    assert (folder / "my.yaml").read_text(encoding="utf-8") == "mine\n"


def test_an_option_takes_what_a_shell_makes_of_a_pattern(folder: Path) -> None:
    wiki(folder).rename(folder / "a.txt")
    wiki(folder)
    messages(folder)
    done = runner.invoke(app, ["init", "my", "--text", "a.txt", "wiki.txt", "--chats", "messages.jsonl"])
    assert done.exit_code == 0, done.stderr
    assert "path: [a.txt, wiki.txt]" in (folder / "my.yaml").read_text(encoding="utf-8")


def test_columns_are_named(folder: Path) -> None:
    faq(folder, ("Frage", "Antwort"))
    command = ["init", "my", "--text", "wiki.txt", "--chats", "faq.csv"]
    assert runner.invoke(app, command).exit_code == 2
    done = runner.invoke(app, [*command, "--column", "prompt=Frage", "--column", "completion=Antwort"])
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["my", "--text", "wiki.txt", "--column", "text"], "--column: found 'text'"),
        (["my", "--text", "wiki.txt", "--role", "=user"], "--role: found '=user'"),
        (["../my", "--text", "wiki.txt"], "NAME: found '../my'"),
        (["my.yaml", "--text", "wiki.txt"], "expected: the experiment's name, without its file's ending\n    as my\n"),
        (["Mein Übungsmodell", "--text", "wiki.txt"], "as Mein-Ubungsmodell\n"),
        (["my", "--text", "wiki.txt", "--base", "owner/name"], "can't be had from"),
        (["my"], "nothing to train on"),
        (["--text", "wiki.txt"], "Missing argument"),
        (["my", "--text"], "requires an argument"),
    ],
)
def test_bad_input_writes_nothing(
    folder: Path, arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = files(folder)
    done = runner.invoke(app, ["init", *arguments])
    assert done.exit_code == 2
    assert expected in done.stderr
    assert files(folder) == before


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write where a folder's mode forbids it, but nobody can make a file there.
    monkeypatch.chdir("/proc")
    done = runner.invoke(app, ["init", "my", "--text", str(folder / "wiki.txt")])
    assert (done.exit_code, "can't be written: No such file or directory" in done.stderr) == (2, True), done.stderr


def test_advice_is_as_a_shell_takes_it(folder: Path) -> None:
    file = faq(folder, ("Die Frage", "Die Antwort")).rename(folder / "my faq.csv").name
    advice = runner.invoke(app, ["init", "my", "--text", "wiki.txt", "--chats", file]).stderr
    options = next(line for line in advice.splitlines() if "name them: " in line).partition("name them: ")[2]
    named = shlex.split(options.partition(";")[0])
    assert named == ["--column", "prompt=Die Frage", "--column", "completion=Die Antwort"]
    done = runner.invoke(app, ["init", "my", "--text", "wiki.txt", "--chats", file, *named])
    assert done.exit_code == 0, done.stderr
    (folder / "chats.json").rename(folder / "my chats.json")
    assert "--chats 'my chats.json' trains" in runner.invoke(app, ["init", "other", "--text", "my chats.json"]).stderr
