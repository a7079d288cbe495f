"""The bytes of a compressed file that may be several, one behind the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Compressed bytes that are read at a time.
_BLOCK = 1 << 20


class Members(io.RawIOBase):
    """All members of a .bz2 or .xz file, decompressed.

    Python's own readers take what follows the first and can't be read for something else, and leave it out in silence,
    as they do what stands behind padding.
    """

    def __init__(self, file: Path, decompressor: Callable[[], Any]) -> None:
        super().__init__()
        self._file = file.open("rb")
        self._new = decompressor
        self._member = decompressor()

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer``; returns how many bytes that took, 0 at the end.

        Raises:
            EOFError: a member is cut off.
            OSError, lzma.LZMAError: there is something else than members, and zeros between them.
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
        """What follows the member that has ended, without padding; empty at the file's end."""
        begun: bytes = self._member.unused_data.lstrip(b"\0")
        while not begun and (block := self._file.read(_BLOCK)):
            begun = block.lstrip(b"\0")
        return begun
