"""How far a run in another process has come, by the files that its stages write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.resume_proof.kill_points import ORDER, Position, last_step
from titanflow.runs.checkpoints import METADATA, step_folders
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE

LAUNCH = re.compile(rb"^\$ ", re.M)
BEGINS = re.compile(rb"Training starts at step (\d+)$", re.M)
AFTER_ALL = 9
"""A phase behind all others: the stage's result exists."""


class StageLog:
    """What a stage's log says since :meth:`begin`: whether the stage was launched, and where training began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begin()

    def begin(self) -> None:
        self._inode, self._offset = self._state()
        self._unread = b""
        self.launched = False
        self.begun_after: int | None = None

    def look(self) -> None:
        inode, size = self._state()
        if inode != self._inode:
            # The stage's folder was moved aside; its new log may already be as long as the old one.
            self._inode, self._offset, self._unread = inode, 0, b""
        if size == self._offset:
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            text = self._unread + file.read()
            self._offset = file.tell()
        whole, _, self._unread = text.rpartition(b"\n")
        self.launched |= bool(LAUNCH.search(whole))
        if begins := BEGINS.findall(whole):
            self.begun_after = int(begins[-1]) - 1

    def _state(self) -> tuple[int, int]:
        """The log's inode and size; zeros before it exists."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size


class RunWatch:
    """Looks at a run's folder; ``stages`` are its stages in order, ``steps`` has how many steps each training has."""

    def __init__(self, folder: Path, stages: Sequence[str], steps: dict[str, int]) -> None:
        self.folder, self.stages, self.steps = folder, stages, steps
        self.logs: dict[str, StageLog] = {stage: StageLog(folder / stage / f"{stage}.log") for stage in stages}

    def begin(self) -> None:
        for log in self.logs.values():
            log.begin()

    def position(self) -> Position:
        """Where the run is: ``Position(-1, 0)`` before its first stage is launched."""
        current = None
        for stage in self.stages:
            self.logs[stage].look()
            if self.logs[stage].launched:
                current = stage
        return Position(-1, 0) if current is None else self._within(current)

    def _within(self, stage: str) -> Position:
        number = self.stages.index(stage)
        folder = self.folder / stage
        if (folder / RESULT_FILE).exists():
            return Position(number, AFTER_ALL)
        if stage not in self.steps or self.logs[stage].begun_after is None:
            # No training begins in a stage whose last step is saved.
            trained = stage in self.steps and self._is_saved(stage)
            return Position(number, ORDER["export"] if trained else ORDER["start"])
        if self._is_saved(stage):
            return Position(number, ORDER["export"])
        return Position(number, ORDER["train"], last_step(folder / METRICS_FILE))

    def _is_saved(self, stage: str) -> bool:
        return (self.folder / stage / "checkpoint" / f"step-{self.steps[stage]}" / METADATA).exists()

    def is_saving(self, stage: str) -> bool:
        newest = next(iter(step_folders(self.folder / stage / "checkpoint").values()), None)
        return newest is not None and not (newest / METADATA).exists()

    def resumed(self) -> Iterator[tuple[str, int]]:
        """The stages whose training began since :meth:`begin`, each with the step that it continues from."""
        for stage, log in self.logs.items():
            if log.begun_after is not None:
                yield stage, log.begun_after
