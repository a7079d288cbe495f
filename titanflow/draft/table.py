"""What was found in a user's files, as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as Line

from titanflow.common.console import uncut
from titanflow.common.quantities import short
from titanflow.data.inspect.facts import UNREAD, FileFacts
from titanflow.data.inspect.inspection import Inspection
from titanflow.data.inspect.text_columns import listed
from titanflow.draft.draft import Draft

SHOWN = 5
"""Files that are shown of each kind."""


def files_table(draft: Draft) -> RenderableType:
    """A row for each file: format, rows, tokens, lengths and columns; below them what is worth knowing."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("file", "format"):
        table.add_column(column)
    for column in ("rows", "tokens", "tokens a row", "malformed"):
        table.add_column(column, justify="right")
    table.add_column("read as")
    rest = []
    for source in (draft.text, draft.chats):
        if source is None:
            continue
        for facts in source.seen.facts[:SHOWN]:
            table.add_row(*_cells(facts, source.seen, source.a_token))
        if (more := len(source.seen.found.files) - SHOWN) > 0:
            tokens = short(round(source.seen.size / source.a_token))
            of = ", ".join(source.seen.path)
            rest.append(
                f"… and {more} more files of {of}, in all about {short(source.seen.rows)} rows, {tokens} tokens"
            )
    lines = [*rest, *(f"note: {note}" for note in draft.notes)]
    return Group(uncut(table), *(Line(line) for line in lines))


def _cells(facts: FileFacts, seen: Inspection, a_token: float) -> list[str]:
    about = "" if facts.is_whole else "~"
    tokens = sorted(facts.tokens(a_token)) or [0.0]
    mean = sum(tokens) / len(tokens)
    return [
        str(facts.file),
        facts.kind,
        about + short(facts.rows),
        f"~{short(round(facts.rows * mean))}",
        f"{tokens[len(tokens) // 2]:.0f} (≤ {tokens[-1]:.0f})",
        str(len(facts.malformed) or ""),
        _read_as(facts, seen),
    ]


def _read_as(facts: FileFacts, seen: Inspection) -> str:
    """``text`` or the conversations' layout, with the columns and roles."""
    read = [f"{name} → {known}" for name, known in facts.columns.items() if known != UNREAD]
    unread = [name for name, known in facts.columns.items() if known == UNREAD]
    kind = seen.data.get("chat_format") or (seen.data.get("document", "file") if not facts.columns else "")
    parts = [*([kind] if kind else []), *read]
    parts += [", ".join(facts.roles)] if facts.roles else []
    parts += [f"unread: {listed(unread)}"] if unread else []
    return "; ".join(parts)
