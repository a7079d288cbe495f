"""Prompts that were longer than a model's context."""

from __future__ import annotations

from titanflow.runs.contract import Strict


class CutPrompts(Strict):
    """A task's items whose prompt was longer than the model's context; the longest lost ``tokens``."""

    prompts: int
    of: int
    tokens: int
    longest: int

    def __str__(self) -> str:
        return f"{self.prompts} of {self.of} prompts cut, up to {self.tokens} tokens of {self.longest}"
