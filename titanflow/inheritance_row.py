"""A line of the table that says what a fine-tuning stage has from its base, as files and commands hold it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

NOT_INHERITED = "Not inherited: optimizer state, scheduler, step, data position"


class InheritanceRow(BaseModel):
    """One setting, as the base has it and as the stage has it.

    ``how`` is ``inherited`` for what is the base's and can't be another (architecture, tokenizer, weights); a setting
    of the stage's own is ``kept`` where the base has the same, ``changed`` where it has another, and ``set`` where the
    base's isn't known. ``origin`` is where the stage's value was written; of what is inherited the base's name.
    """

    model_config = ConfigDict(extra="forbid")

    key: str
    how: Literal["inherited", "kept", "changed", "set"]
    base: str
    here: str
    origin: str = ""

    def __str__(self) -> str:
        where = f" from {self.origin}" if self.origin else ""
        return f"{self.how.capitalize()} {self.key}: {self.value}{where}"

    @property
    def value(self) -> str:
        """The stage's value; of one that was changed the base's before it."""
        return f"{self.base} → {self.here}" if self.how == "changed" else self.here


def counted(rows: Iterable[InheritanceRow]) -> str:
    """How many settings are of which kind: ``inherited 21, kept 6, changed 6``."""
    kinds = [row.how for row in rows]
    return ", ".join(f"{how} {kinds.count(how)}" for how in dict.fromkeys(("inherited", "kept", "changed", *kinds)))
