"""Consoles of the command line, which never cut what they print.

A terminal folds what is wider than it. A pipe or a file has no width: there a row is one line, however long, so that a
program can read all of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import IO, Any, TypeVar

from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

UNBOUNDED = ConsoleDimensions(width=1 << 20, height=25)
"""A pipe has more columns than any line."""

Columns = TypeVar("Columns", bound=Table)


class Output(Console):
    """Prints to the stdout or stderr of the moment, or to ``file``. Brackets and colons are text, not rich's markup."""

    def __init__(self, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Leaves the folding of long text to the terminal, so that text copied from it has no line breaks."""
        options.setdefault("soft_wrap", all(isinstance(one, str | Text) for one in objects))
        super().print(*objects, **options)

    # rich takes a pipe for a terminal of 80 columns, and with FORCE_COLOR for a terminal altogether.
    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        return super().size if self.file.isatty() else UNBOUNDED


def tell(line: str, to_errors: bool = False) -> None:
    """Prints a line of a program that goes on though nobody hears it: its pipe is closed, or its log's disk is full."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr if to_errors else sys.stdout, flush=True)


def uncut(table: Columns) -> Columns:
    """The table with columns that fold long values on a narrow terminal, where rich would cut them (``…``)."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    return table


def one_line(text: str) -> str:
    """The text with line breaks and control characters escaped as in JSON: ``\\n``, ``\\u2028``, ``\\u001b``."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
