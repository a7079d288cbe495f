"""Decompresses a file that may consist of several compressed members, one behind the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Compressed bytes to read at a time.
_BLOCK = 1 << 20


class Members(io.RawIOBase):
    """All members of a .bz2 or .xz file, decompressed.

    Python's own readers silently ignore damaged members behind the first one, and anything behind padding.
    """

    def __init__(self, file: Path, decompressor: Callable[[], Any]) -> None:
        super().__init__()
        self._file = file.open("rb")
        self._new = decompressor
        self._member = decompressor()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer``; returns the number of bytes, 0 at the end.

        A member that is cut off is an EOFError; anything but members and zeros between them an OSError or LZMAError.
        """
        data = b""
        while not data:
            if self._member.eof and not (begun := self._behind()):
                return 0
            if self._member.eof:
                self._member = self._new()
            else:
                begun = self._file.read(_BLOCK) if self._member.needs_input else b""
                if self._member.needs_input and not begun:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            data = self._member.decompress(begun, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _behind(self) -> bytes:
        """The bytes after the finished member, without padding; empty at the file's end."""
        begun: bytes = self._member.unused_data.lstrip(b"\0")
        while not begun and (block := self._file.read(_BLOCK)):
            begun = block.lstrip(b"\0")
        return begun
