"""Text that came from data, a model or a config, as markdown that shows it and does nothing else.

Entities and not backslashes: a table is split at its bars before the backslashes are read, and a backslash that the
text itself holds would change what ours does.
"""

from __future__ import annotations

import re
import unicodedata

BREAK = "<br>"
# What opens HTML, a code span, a link, emphasis, a formula or another cell.
ACTIVE = re.compile(r"[&<>|`*\[\]\\~$]|(?<![^\W_])_|_(?![^\W_])")
# What GitHub's markdown makes a link of by itself.
LINKED = re.compile(r":(?=//)|(?<=www)\.|@")
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Controls that make text read otherwise than it is written."""


def plain(text: object, limit: int | None = None) -> str:
    """The text as inline markdown, also in a table's cell: no markup of its own takes effect.

    Line breaks become ``<br>``; of a text longer than ``limit`` characters the rest is left out.
    """
    shown = str(text).strip()
    if limit is not None and len(shown) > limit:
        shown = shown[:limit].rstrip() + "…"
    lines = [_entities(visible(line)) for line in shown.splitlines()]
    return BREAK.join(line for line in lines if line)


def code(text: object) -> str:
    """The text as a code span; as ``<code>`` where backticks or a table's bars would end it."""
    shown = visible(" ".join(str(text).split()))
    return f"<code>{_entities(shown)}</code>" if re.search(r"[`|]", shown) or not shown else f"`{shown}`"


def fence(text: str) -> str:
    """What opens and closes a block of code around the text: more backticks than stand in it."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def visible(text: str) -> str:
    """The text without control characters and halves of characters; tabs are spaces."""
    spaced = text.replace("\t", " ")
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cs") and char not in BIDI)


def _entities(text: str) -> str:
    def entity(match: re.Match[str]) -> str:
        return f"&#{ord(match[0])};"

    return LINKED.sub(entity, ACTIVE.sub(entity, text))
