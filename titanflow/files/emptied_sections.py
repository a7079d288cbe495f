"""Finds the sections that a setting would empty, and that a merge leaves as they are."""

from __future__ import annotations

from collections.abc import Iterator

from titanflow.common.errors import Problem
from titanflow.files.yaml_source import Tree


def emptied(base: Tree, over: Tree, prefix: str = "") -> Iterator[Problem]:
    """A problem for each section of ``base`` that ``over`` has as ``{}``: a merge leaves it as it is.

    In a file an empty section is one that nobody has filled. Whoever writes it in a setting means something by it.
    """
    for key, value in over.items():
        below, dotted = base.get(key), f"{prefix}{key}"
        if not isinstance(below, dict) or not below:
            continue
        if isinstance(value, dict) and value:
            yield from emptied(below, value, f"{dotted}.")
        elif isinstance(value, dict):
            hint = f"null clears it; or set the keys in it: {', '.join(f'{dotted}.{one}' for one in below)}"
            yield Problem("an empty value changes nothing of a section", dotted, "a setting", hint=hint)
