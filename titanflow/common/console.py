"""What commands print on: nothing of it is ever cut.

A terminal's lines are as long as it is wide, and what doesn't fit goes on in the next one. A pipe or a file has no
width: there a row is one line, however long, so that a program finds the whole of it.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

UNBOUNDED = ConsoleDimensions(width=1 << 20, height=25)
"""Columns that a pipe has: more than any line."""

Columns = TypeVar("Columns", bound=Table)


class Output(Console):
    """What stdout or stderr is at the time of printing. Brackets and colons of a text mean nothing."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; lines of text are left to the terminal to fold, so that what is copied from it has no breaks."""
        options.setdefault("soft_wrap", all(isinstance(one, str | Text) for one in objects))
        super().print(*objects, **options)

    # rich takes a pipe for a terminal of 80 columns, and with FORCE_COLOR for a terminal altogether.
    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """The terminal's columns and lines."""
        return super().size if self.file.isatty() else UNBOUNDED


def uncut(table: Columns) -> Columns:
    """The table with columns whose values go on below where a terminal is too narrow: rich's own end in ``…``."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    return table


def one_line(text: str) -> str:
    """The text with what would begin a line or move the cursor as JSON writes it: ``\\n``, ``\\u2028``, ``\\u001b``."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
