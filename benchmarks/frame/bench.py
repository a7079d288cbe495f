"""What a question is given: how much it may measure, what the machine gives at most, and a folder of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from frame.figures import Figure, Limit
from frame.processes import Failed


@dataclass(frozen=True)
class Bench:
    """``toy`` asks for sizes of seconds that prove nothing but that the question runs. ``files`` are the user's own."""

    folder: Path
    pairs: int
    toy: bool = False
    limits: dict[str, float] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def window(self) -> float:
        """Seconds of a training's window."""
        return 0.2 if self.toy else 3.0

    def found(self, figure: Figure) -> None:
        """Keeps a figure and says it at once: a question may take minutes, and may fail behind it.

        Raises:
            Failed: the figure has no value, and no reason why it was not run.
        """
        if not figure.ours and not figure.not_run:
            raise Failed(f"{figure.what}: nothing was measured")
        with (self.folder / "answer.json").open("a", encoding="utf-8") as file:
            file.write(json.dumps(figure.as_json()) + "\n")
        ratio = f", {median(figure.ratios):.2f} times {figure.peer}" if figure.theirs else ""
        value = f"{median(figure.ours):,.4g} {figure.unit}" if figure.ours else figure.not_run
        print(f"    {figure.what}: {value}{ratio} {figure.verdict}", flush=True)

    def seconds(self, size: float, limit: str) -> Limit | None:
        """The least seconds that so many bytes take at one of the machine's rates."""
        rate = self.limits.get(limit)
        return Limit(f"{limit.replace('_', ', ')}, {rate / 1e6:,.0f} MB/s", size / rate) if rate else None

    def least(self, limit: str) -> Limit | None:
        """The least seconds of a start: ``start_python``, or ``import_torch`` and its like."""
        seconds = self.limits.get(limit)
        return Limit(limit.replace("_", " "), seconds) if seconds else None
