"""The differences between what a stage was made from and what it would be made from now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from titanflow.runs.inputs import StageInputs

PARENT = "parent."
"""Prefix of the keys that stand for earlier stages."""
NAMED = 3
"""How many keys a reason names."""


class Change(BaseModel):
    """One leaf that differs, None where a side lacks it; ``origin`` is where the new value was written, else the
    old."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    key: str
    old: Any = None
    new: Any = None
    origin: str = ""

    @property
    def parent(self) -> str:
        """The earlier stage whose result changed, if this is such a change; otherwise empty."""
        return self.key.removeprefix(PARENT) if self.key.startswith(PARENT) else ""


def find_changes(old: StageInputs, new: StageInputs) -> list[Change]:
    """Each leaf in which the two differ, in the order of the new; the content of files file by file."""
    changes: list[Change] = []
    for key in dict.fromkeys([*new.values, *old.values]):
        before, after = old.values.get(key), new.values.get(key)
        if (key in old.values) == (key in new.values) and json.dumps(before) == json.dumps(after):
            continue
        origin = new.origins.get(key) or old.origins.get(key, "")
        by_file = _file_changes(key, old, new, origin) if key in old.files and key in new.files else []
        changes += by_file or [Change(key=key, old=before, new=after, origin=origin)]
    return changes


def _file_changes(key: str, old: StageInputs, new: StageInputs, origin: str) -> list[Change]:
    before, after = old.files[key], new.files[key]
    found = []
    for name in dict.fromkeys([*after, *before]):
        one, other = before.get(name), after.get(name)
        if one is None or other is None or one.sha256 != other.sha256:
            found.append(Change(key=f"{key}: {name}", old=one and str(one), new=other and str(other), origin=origin))
    return found


def changes_reason(changes: Sequence[Change]) -> str:
    """The changes in a line: the stage's own by key, otherwise the earlier stages that changed."""
    own = [change.key for change in changes if not change.parent]
    parents = [change.parent for change in changes if change.parent]
    if not own:
        return f"{listed(parents)} changed"
    named = ", ".join(own[:NAMED]) + (", …" if len(own) > NAMED else "")
    after = f"; {listed(parents)} changed" if parents else ""
    return f"{values(len(own))} changed: {named}{after}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)


def values(count: int) -> str:
    """``1 value``, ``2 values``."""
    return f"{count} value{'' if count == 1 else 's'}"
