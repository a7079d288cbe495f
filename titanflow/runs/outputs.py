"""Whether a stage's outputs are still as written, by the digests in its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from titanflow.common.digests import digest, file_digest
from titanflow.files.cgroups import usable_cores
from titanflow.runs.contract import RESULT_FILE

PLAN_HASHES = 256 << 20
"""Bytes that one plan reads at most of files whose time or inode changed; a run reads all that its stages use."""
VARYING = {"seconds", "tokens_per_second", "peak_memory_bytes", "trackers", "versions"}
"""What a ``result.json`` says of how a stage went, not of what it made: each run of the same stage differs."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def at_once(function: Callable[[Given], Made], values: Iterable[Given]) -> list[Made]:
    """Maps the values in threads: hashing releases Python's lock."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, values))


def content_digest(path: Path) -> str:
    """SHA-256 of a file; a ``result.json`` without what varies."""
    if path.name != RESULT_FILE:
        return file_digest(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return file_digest(path)
    return digest({key: value for key, value in content.items() if key not in VARYING})


class OutputFile(BaseModel):
    """One file that a stage wrote: bytes, SHA-256 (unless an older version wrote the record), and signs of later
    writes."""

    bytes: int
    sha256: str = ""
    mtime_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, path: Path, sha256: str = "") -> OutputFile:
        """A file as it is now, with no bytes if it isn't there; it isn't read if its digest is given."""
        if not path.is_file():
            return cls(bytes=0)
        state = path.stat()
        sha256 = sha256 or content_digest(path)
        return cls(bytes=state.st_size, sha256=sha256, mtime_ns=state.st_mtime_ns, inode=state.st_ino)

    def is_untouched(self, path: Path) -> bool:
        state = path.stat()
        return (state.st_size, state.st_mtime_ns, state.st_ino) == (self.bytes, self.mtime_ns, self.inode)


@dataclass
class OutputCheck:
    """Compares outputs with their record, reading at most ``budget`` bytes and no untouched file; with None all."""

    budget: int | None = PLAN_HASHES

    def changed(self, folder: Path, outputs: Mapping[str, OutputFile], suspects: list[str]) -> dict[str, str]:
        """What became of each output that is no longer as written, by its path; ``suspects`` are read in any case."""

        def verdict(path: str) -> str:
            return self._verdict(folder / path, outputs[path], path in suspects)

        verdicts = at_once(verdict, outputs) if self.budget is None else [verdict(path) for path in outputs]
        return {path: said for path, said in zip(outputs, verdicts, strict=True) if said}

    def _verdict(self, path: Path, recorded: OutputFile, is_suspect: bool) -> str:
        if not path.is_file():
            return "is gone"
        if path.stat().st_size != recorded.bytes and path.name != RESULT_FILE:
            return "changed since it was written"
        if not recorded.sha256 or not (is_suspect or self._reads(path, recorded)):
            return ""
        return "" if content_digest(path) == recorded.sha256 else "changed since it was written"

    def _reads(self, path: Path, recorded: OutputFile) -> bool:
        if self.budget is None:
            return True
        # Beyond the budget a file of the right size is trusted.
        if recorded.is_untouched(path) or recorded.bytes > self.budget:
            return False
        self.budget -= recorded.bytes
        return True
