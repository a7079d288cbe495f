"""Evaluation items that also stand in a model's training data: what was found, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from titanflow.runs.contract import Strict


class TaskLeaks(Strict):
    """One task: how many items were looked for, the numbers of those found, and how many have no wording of their
    own."""

    items: int
    leaked: list[int] = Field(default_factory=list)
    shared: int = 0

    @property
    def scored(self) -> list[int]:
        return sorted({*range(self.items)} - {*self.leaked})

    @property
    def share(self) -> float:
        return len(self.leaked) / self.items if self.items else 0.0


class Contamination(Strict):
    """What was found of each task in ``looked_at``, the names of the models' training data.

    ``not_looked_at`` says which data nobody could look at, and why. If ``dropped``, the items found aren't scored.
    """

    tasks: dict[str, TaskLeaks] = Field(default_factory=dict)
    looked_at: list[str] = Field(default_factory=list)
    not_looked_at: list[str] = Field(default_factory=list)
    dropped: bool = False

    @property
    def leaked(self) -> dict[str, TaskLeaks]:
        return {name: task for name, task in self.tasks.items() if task.leaked}

    @property
    def dropped_items(self) -> dict[str, list[int]]:
        return {name: task.leaked for name, task in self.leaked.items()} if self.dropped else {}

    def sentences(self) -> Iterator[str]:
        """The findings as a log, the card and the report tell them."""
        items = sum(task.items for task in self.tasks.values())
        if self.looked_at:
            places = ", ".join(self.looked_at)
            if not self.leaked:
                yield f"None of the {items:,} items was found in the training data ({places})."
            for name, task in self.leaked.items():
                found = f"{len(task.leaked):,} of {task.items:,} items of {name} ({task.share:.1%})"
                yield f"{found} were found in the training data ({places})."
            if self.leaked:
                yield "These items are not scored." if self.dropped else "They are part of the scores."
        for name, task in self.tasks.items():
            if task.shared and self.looked_at:
                yield f"{task.shared:,} items of {name} have no wording of their own and can't be looked for."
        for what in self.not_looked_at:
            yield f"Not looked at: {what}."
