"""Reads the lines that a running stage adds to its ``metrics.jsonl``."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path
from typing import Any

from titanflow.runs.metrics import parse_metrics


class MetricsTail:
    """Returns each line that is added to a file once, and never half of one.

    Lines that are there at the start belong to an earlier attempt and are skipped. A resumed stage replaces the file by
    one without the lines after its checkpoint's step: the lines that both have are skipped as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = path.read_bytes() if path.exists() else b""
        self._inode = path.stat().st_ino if path.exists() else None

    def read(self) -> list[dict[str, Any]]:
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
        return parse_metrics(complete)


def _common_lines(old: bytes, new: bytes) -> bytes:
    pairs = zip(old.splitlines(keepends=True), new.splitlines(keepends=True), strict=False)
    return b"".join(line for line, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
