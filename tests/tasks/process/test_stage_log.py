"""The lines of a stage's log, as they are written and as they are read."""

import logging
from pathlib import Path

import pytest

from tasks.process import stage_log
from tasks.process.stage_log import LogTail, newest_bar, read_line
from titanflow.runs.errors import log_to_stderr, warn


@pytest.mark.parametrize(
    ("line", "text", "is_warning"),
    [
        ("09:41:07 INFO 1/2 base kind: acc 0.250", "1/2 base kind: acc 0.250", False),
        ("09:41:07 WARNING sft kind: 2 of 8 prompts cut", "sft kind: 2 of 8 prompts cut", True),
        ("WARNING chats: 3 left out", "chats: 3 left out", True),
        ("[titan] 2026-11-30 03:19:24,441 - root - WARNING - no file      ", "no file", True),
        ("[rank1]:[titan] 2026-11-30 03:19:24,441 - root - INFO - step: 1", "step: 1", False),
        ("/lib/x.py:485: UserWarning: it is assumed", "UserWarning: it is assumed", True),
        ("  return func()", "return func()", False),
        ("a WARNING in the middle", "a WARNING in the middle", False),
        ("10%|#   | 1/8\rdone \x1b[33mnow\x1b[0m\x1b[2J", "done now\\u001b[2J", False),
    ],
)
def test_a_line_is_read_whoever_wrote_it(line: str, text: str, is_warning: bool) -> None:
    assert read_line(line) == (text, is_warning)


def test_what_this_project_writes_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    before, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []
    try:
        log_to_stderr()
        logging.getLogger("titanflow.any").warning("one")
        logging.getLogger("titanflow.any").info("two")
    finally:
        logging.root.handlers = before
        logging.root.setLevel(level)
    warn("three")
    read = [read_line(line) for line in capsys.readouterr().err.splitlines()]
    assert read == [("one", True), ("two", False), ("three", True)]


def test_only_what_is_added_is_read_and_in_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "x.log"
    tail = LogTail(log)
    assert tail.read() == ""
    log.write_text("one\ntw")
    assert (tail.read(), tail.read()) == ("one\n", "")
    with log.open("a") as file:
        file.write("o\n")
    assert tail.read() == "two\n"
    assert LogTail(log).read() == ""
    log.write_text("anew\n")
    assert tail.read() == "anew\n"
    monkeypatch.setattr(stage_log, "MOST_READ", 10)
    with log.open("a") as file:
        file.write("much\n" * 100 + "last\n")
    assert tail.read() == "much\nlast\n"


def test_the_newest_bar(tmp_path: Path) -> None:
    log = tmp_path / "lm_eval.log"
    assert newest_bar(log) == ""
    log.write_text("no bar")
    assert newest_bar(log) == ""
    log.write_text("Tokenizing inputs: 100%|███| 4/4 [00:00<00:00]\nRunning it:  12%|█   | 1/8 [00:01<?, ?it/s]\r")
    assert newest_bar(log) == "Running it 1 of 8"
