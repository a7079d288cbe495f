"""The lines that a running stage adds to its log, and which of them are warnings.

A log has lines of this project's programs (:func:`titanflow.runs.errors.log_to_stderr`), of torchtitan's logger, of
Python's ``warnings``, and of libraries that just print.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from titanflow.common.console import one_line
from titanflow.runs.errors import WARNING

_RANK = re.compile(r"^\[(?:default|rank)\d+\]:\s?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OWN = re.compile(r"^(?:\d\d:\d\d:\d\d )?(?P<level>INFO|WARNING|ERROR) (?P<text>.*)")
_TORCHTITAN = re.compile(r"^\[titan\] \S+ \S+ - \S+ - (?P<level>[A-Z]+) - (?P<text>.*)")
_PYTHON = re.compile(r"^\S+:\d+: (?P<text>\w*Warning: .*)")
_BAR = re.compile(r"(\w[\w ]*): +\d+%\|[^|]*\| (\d+)/(\d+) \[")
_LONGEST_BAR = 512
MOST_READ = 1 << 20
"""Bytes that one look at a log reads. What a stage writes beyond them between two looks is passed over."""


class Said(NamedTuple):
    """One line of a log: its text alone, and whether it is a warning."""

    text: str
    is_warning: bool


def read_line(line: str) -> Said:
    """A log's line without time, level and rank; what would move a terminal's cursor is escaped."""
    line = one_line(_RANK.sub("", _COLOUR.sub("", line.rpartition("\r")[2])).strip())
    if found := _PYTHON.match(line):
        return Said(found["text"], True)
    if found := _OWN.match(line) or _TORCHTITAN.match(line):
        return Said(found["text"].strip(), found["level"] == WARNING)
    return Said(line, False)


def newest_bar(log: Path) -> str:
    """The last progress bar in a log, as ``Running generate_until requests 3 of 40``; empty if it ends with none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LONGEST_BAR))
            found = _BAR.findall(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return "{} {} of {}".format(*found[-1]) if found else ""


class LogTail:
    """Reads what is added to a log from now on, and never half a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._torn = b""

    def read(self) -> str:
        """The text that was added since the last look, in whole lines: empty if there is none."""
        try:
            size = self.path.stat().st_size
            if size < self._at:
                # Written anew.
                self._at, self._torn = 0, b""
            if size == self._at:
                return ""
            if size - self._at > MOST_READ:
                self._at, self._torn = size - MOST_READ, b""
            with self.path.open("rb") as file:
                file.seek(self._at)
                text = self._torn + file.read(size - self._at)
        except OSError:
            return ""
        self._at = size
        whole, end, self._torn = text.rpartition(b"\n")
        return (whole + end).decode(errors="replace")
