"""Text that came from data, a model or a config, as markdown that shows it and does nothing else.

It uses entities, not backslashes: a table is split at its bars before backslashes are read, and a backslash in the text
itself would change what ours does.
"""

from __future__ import annotations

import re
import unicodedata

BREAK = "<br>"
# Opens HTML, a code span, a link, emphasis, a formula or another cell.
ACTIVE = re.compile(r"[&<>|`*\[\]\\~$]|(?<![^\W_])_|_(?![^\W_])")
# Makes GitHub's markdown turn text into a link by itself.
LINKED = re.compile(r":(?=//)|(?<=www)\.|@")
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Controls that display text in another order than it is written."""


def plain(text: object, limit: int | None = None) -> str:
    """The text as inline markdown, also in a table's cell: no markup of its own takes effect.

    Line breaks become ``<br>``; a text longer than ``limit`` characters is cut there.
    """
    shown = str(text).strip()
    if limit is not None and len(shown) > limit:
        shown = shown[:limit].rstrip() + "…"
    lines = [_entities(visible(line)) for line in shown.splitlines()]
    return BREAK.join(line for line in lines if line)


def code(text: object) -> str:
    """The text as a code span, or as ``<code>`` if backticks or a table's bars would end the span."""
    shown = visible(" ".join(str(text).split()))
    return f"<code>{_entities(shown)}</code>" if re.search(r"[`|]", shown) or not shown else f"`{shown}`"


def fence(text: str) -> str:
    """The marks around a block of code: more backticks than the text has in a row."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def visible(text: str) -> str:
    """The text without control characters and lone surrogates; tabs become spaces."""
    spaced = text.replace("\t", " ")
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cs") and char not in BIDI)


def _entities(text: str) -> str:
    for pattern in (ACTIVE, LINKED):
        text = pattern.sub(lambda match: f"&#{ord(match[0])};", text)
    return text
