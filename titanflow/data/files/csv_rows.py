"""The rows of a CSV file: which sign parts its columns, and cells as they stand under their header."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.data.files.local_files import KEY

SEPARATORS = ",;\t|"
"""Signs that part columns. Spreadsheets write semicolons where the comma is the decimal sign."""
_SAID = re.compile(r'"?sep=([,;\t|])"?\r?\n')
"""A first line by which Excel's files may say what parts their columns."""
_HEADER = 100
"""Lines in which the header ends: a name may hold line breaks."""


def csv_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows under a header, each with its first line's number. Cells stay text: neither "NA" nor 7 is converted.

    Raises:
        DataError: while the caller iterates: it is no CSV, a row isn't as its header, or names of columns repeat.
    """
    # A cell may hold a whole document.
    csv.field_size_limit(sys.maxsize)
    head = list(islice(lines, _HEADER))
    said = _SAID.fullmatch(head[0]) if head else None
    head = head[1:] if said else head
    header, above = None, 1 if said else 0
    began = 1 + above
    try:
        separator = said[1] if said else separator_of(head)
        # Strict: otherwise an unclosed quotation mark would swallow the rest of the file.
        reader = csv.reader(chain(head, lines), delimiter=separator, strict=True)
        for cells in reader:
            began, line = reader.line_num + 1 + above, began
            if cells and header is None:
                header = Header(cells, separator)
                check_names(f"{file}:{line}", header.names)
            elif cells and header is not None:
                yield line, header.row(cells, f"{file}:{line}")
    except csv.Error as error:
        raise DataError(Problem(f"not CSV: {error}", KEY, f"{file}:{began}")) from error


def separator_of(head: list[str]) -> str:
    """The sign that parts a header into the most columns; the comma, where none does."""
    headers = {sign: next(filter(None, csv.reader(head, delimiter=sign)), []) for sign in SEPARATORS}
    return max(SEPARATORS, key=lambda sign: len(headers[sign]))


class Header:
    """The names of the columns. Lines may end with a separator: all of them, or all but the header."""

    def __init__(self, cells: list[str], separator: str) -> None:
        self.ends_empty = True if cells[1:] and not cells[-1].strip() else None
        """Whether the rows end with a separator; None where the first one shows it."""
        self.names = cells[:-1] if self.ends_empty else cells
        self.separator = separator

    def row(self, cells: list[str], origin: str) -> dict[str, str]:
        more = len(cells) == len(self.names) + 1 and not cells[-1].strip()
        if self.ends_empty is None:
            self.ends_empty = more
        if len(cells) != len(self.names) + self.ends_empty or self.ends_empty > more:
            sign = "" if self.separator == "," else f" (parted by {self.separator!r})"
            expected = f"{len(self.names)}, as in the header: {', '.join(self.names)}{sign}"
            hint = "a separator ends this line, and not all before it" if more else ""
            raise DataError(Problem(f"the row has {len(cells)} cells", KEY, origin, expected, hint))
        return dict(zip(self.names, cells, strict=False))


def check_names(origin: str, names: list[str]) -> None:
    """Refuses names of columns that repeat.

    Raises:
        DataError: with these names.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        message = f"columns of the same name: {', '.join(map(repr, repeated))}"
        raise DataError(Problem(message, KEY, origin, expected="a name of its own for each column"))
