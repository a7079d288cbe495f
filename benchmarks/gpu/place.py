"""Where a check works, on what, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from titanflow.config.device import this_machine
from titanflow.planning.forecast.device import DeviceSpec, cpu, gpus

Verdict = Literal["met", "missed", "failed", "not run"]
NEEDS_CUDA = "needs CUDA"


@dataclass(frozen=True)
class Row:
    """One verdict: what was wanted, and what was found; ``figures`` are numbers for the JSON."""

    name: str
    wanted: str
    found: str
    verdict: Verdict
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A folder to work in, and whether models and steps are of toy size."""

    folder: Path
    toy: bool

    @property
    def device(self) -> DeviceSpec:
        """The first GPU, or this machine's CPU."""
        if this_machine().kind == "cpu":
            return cpu()
        return next(iter(gpus()), DeviceSpec("cuda", "a GPU that nvidia-smi doesn't show"))

    @property
    def has_cuda(self) -> bool:
        return self.device.kind == "cuda"

    @property
    def rows_file(self) -> Path:
        """A line for each row that the check has handed back so far."""
        return self.folder / "rows.jsonl"

    def add(self, row: Row) -> None:
        with self.rows_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def rows(self) -> list[Row]:
        """The rows that the check has handed back so far."""
        if not self.rows_file.exists():
            return []
        return [Row(**json.loads(line)) for line in self.rows_file.read_text(encoding="utf-8").splitlines()]


def judged(name: str, wanted: str, found: str, is_met: bool, **figures: Any) -> Row:
    """A row whose verdict is ``met`` or ``missed``."""
    return Row(name, wanted, found, "met" if is_met else "missed", figures)


def not_run(name: str, wanted: str, why: str = NEEDS_CUDA, **figures: Any) -> Row:
    """A row of something that can't exist here, or that nothing can be compared with."""
    return Row(name, wanted, why, "not run", figures)
