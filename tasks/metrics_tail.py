"""Reads the lines that a running stage adds to its ``metrics.jsonl``."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import takewhile
from pathlib import Path
from typing import Any


class MetricsTail:
    """Gives each line that is added to a file once, and no half-written one.

    Lines that are there at the start belong to an earlier attempt and are skipped. A resumed stage replaces the
    file by one without the lines after its checkpoint's step: what both have in common is skipped as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = path.read_bytes() if path.exists() else b""
        self._inode = path.stat().st_ino if path.exists() else None

    def read(self) -> list[dict[str, Any]]:
        """The records added since the last call, oldest first."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._inode not in (None, inode):
                self._read = _common_lines(self._read, file.read())
            self._inode = inode
            file.seek(len(self._read))
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += complete
        return _records(complete)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a ``metrics.jsonl``, oldest first; none if there is no file."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return _records(text[: text.rfind(b"\n") + 1])


def _records(text: bytes) -> list[dict[str, Any]]:
    records = []
    for line in text.splitlines():
        # A line that a killed attempt left torn is no reason to end a training.
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def _common_lines(old: bytes, new: bytes) -> bytes:
    pairs = zip(old.splitlines(keepends=True), new.splitlines(keepends=True), strict=False)
    return b"".join(line for line, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
