"""Paths as a person writes them, and text files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def expanded(named: str | Path) -> Path:
    """A path with its ``~`` or ``~user`` expanded; as it stands where there is no such user."""
    try:
        return Path(named).expanduser()
    except RuntimeError:
        return Path(named)


def unwritable_name(named: str) -> str:
    """Why a folder can't be meant by this name, if it would be made: it would be another one. Empty where it can."""
    if not named.strip():
        return "an empty text would be the current folder"
    return f"there is no user {named[1:].partition('/')[0]!r}" if str(expanded(named)).startswith("~") else ""


def hidden_sibling(path: Path) -> Path:
    """A name beside ``path`` that nobody else writes to; a process id is another process's on another machine."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new, never half of one, also after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_sibling(path)
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
