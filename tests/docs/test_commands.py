"""Every command of README.md and docs/ is known, and those that take no hour and no cluster are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from doc_blocks import BLOCKS, COMMANDS, LANGUAGES, PAGES, ROOT, Block
from doc_commands import check_settings, known_command
from example_files import write_files
from own_files import sharegpt, wiki
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.common.errors import TitanflowError

pytestmark = pytest.mark.slow
OF_COMMANDS = [block for block in BLOCKS if block.language in COMMANDS]
RUN = [block for block in OF_COMMANDS if block.is_run]
INLINE = re.compile(r"`(titanflow [^`]+)`")
SET = re.compile(r"`--set ([^`]+)`")


def test_every_block_has_a_language_and_every_command_and_config_a_rule() -> None:
    assert len(BLOCKS) > 60
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    ruled = {"sh": "run: ", "console": "run: ", "yaml": "read: "}
    assert [str(one) for one in BLOCKS if not one.rule.startswith(ruled.get(one.language, ""))] == []


def test_every_rule_is_one_that_is_known() -> None:
    for block in OF_COMMANDS:
        named = block.rule.removeprefix("run: ")
        by, why = named.removeprefix("by "), named.removeprefix("no: ")
        assert block.is_run or (by != named and (ROOT / by).is_file()) or (why != named and len(why) > 8), str(block)


@pytest.mark.parametrize("block", [block for block in OF_COMMANDS if not block.rule.startswith("run: by ")], ids=str)
def test_a_page_names_commands_options_and_keys_that_exist(block: Block) -> None:
    commands = block.commands()
    assert commands
    for words in commands:
        known_command(words)


@pytest.mark.parametrize(
    "command",
    [
        "titanflow runn stdlib",
        "titanflow run stdlib --sett a=1",
        "titanflow plan stdlib --set pretrain.training.stepz=1",
        "titanflow plan stdlib --set pretrain.training.steps=0",
        "make demo",
        'make run ARGS="--set sft.lora.rnak=8"',
        "make serve ARGS='--nightly 3'",
        "docker run --rm titanflow:cpu plan stdlib --sett a=1",
        "titanflow serve --pools gpu",
        "prefect deployment run pretrain-sft/on-demand --param experimnet=my",
        "A=1 wget localhost",
    ],
)
def test_a_command_with_a_mistake_is_found(command: str) -> None:
    (words,) = Block("page", 1, "sh", "", command).commands()
    with pytest.raises((AssertionError, TitanflowError, *typer.BadParameter.__bases__)):
        known_command(words)


def test_commands_are_read_as_a_shell_does() -> None:
    text = "$ A=1 x 'a\nb'  # why\nprinted\nhead$ y \\\n  z\n$ cat > f <<END\n$ no: a command\nEND\n$ w | v\n"
    block = Block("page", 1, "console", "", text)
    assert block.commands() == [["A=1", "x", "a\nb"], ["y", "z"], ["cat", ">", "f", "<<END"], ["w", "|", "v"]]
    assert block.here_documents() == {"f": "$ no: a command\n"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that a page's reader has."""
    wiki(tmp_path)
    sharegpt(tmp_path)
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def titanflow(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"titanflow {' '.join(arguments)}\n{done.output}\n{done.exception!r}"
    return done.output


def names_my(words: list[str]) -> bool:
    return "my" in words and words[1] != "init"


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_page_is_followed(block: Block, folder: Path, request: pytest.FixtureRequest) -> None:
    if block.page == "docs/examples.md":
        request.getfixturevalue("shipped_bases")
    for other in BLOCKS:
        if other.page == block.page and (named := re.fullmatch(r"read: (\w+) (\S+\.yaml)", other.rule)):
            place = folder / "configs" / f"{named[1]}s" / named[2]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(other.text)
    commands = block.commands()
    if any(map(names_my, commands)) and not any(words[:2] == ["titanflow", "init"] for words in commands):
        titanflow(["init", "my", "--text", "wiki.txt", "--chats", "chats.json"])
    for words in commands:
        arguments = known_command(words)
        if arguments is None:
            continue
        if arguments[0] == "run":
            assert block.rule == "run: planned", "a run takes minutes: plan it"
            arguments = ["plan", *arguments[1:]]
        printed = titanflow(arguments)
        assert printed
        if words[-2:-1] == [">"]:
            (folder / words[-1]).write_text(printed)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_keys_within_a_text_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in INLINE.findall(text):
        if not re.search(r"[…|\[<]|\b[A-Z]{2,}\b", command):
            known_command(command.split())
    for found in SET.findall(text):
        # Some stand for any: `--set KEY=VALUE`.
        if not re.search(r"[…<]|\b[A-Z]{2,}\b|^key=value", found):
            check_settings(" ".join(shlex.split(setting)) for setting in found.split(" --set "))
