"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new, never half of one, also after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two machines, or containers, may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
