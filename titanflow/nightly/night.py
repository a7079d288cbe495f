"""A night as its run's folder has it: ``night.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from titanflow.common.files import write_text_atomically
from titanflow.files.own_files import read_mapping, readable
from titanflow.runs.manifest import now

NIGHT_FILE = "night.json"
HINT = "without this file the run is no night, and its folder stays as it is"
NightState = Literal["", "published", "proposed", "held back", "finished", "failed", "skipped"]


class Parent(BaseModel):
    """The earlier night whose weights a night continues from.

    ``rows`` counts the rows of the data's order that this night and those before it have trained on. ``digest`` is that
    of its ``result.json``, which holds the digests of the weights.
    """

    model_config = ConfigDict(extra="forbid")

    run: str
    checkpoint: Path
    step: int
    rows: int = 0
    digest: str = ""


class Night(BaseModel):
    """``night.json``. ``state`` is empty until the night has ended; ``message`` says why it failed or was skipped."""

    model_config = ConfigDict(extra="forbid")

    date: str
    run: str
    start: Literal["anew", "continue"] = "anew"
    parent: Parent | None = None
    began: str = ""
    ended: str = ""
    state: NightState = ""
    message: str = ""

    @classmethod
    def read(cls, folder: Path) -> Night | None:
        """The night that a run's folder belongs to; None if it belongs to none.

        Raises:
            DataError: its file can't be read, or another version wrote it.
        """
        path = folder / NIGHT_FILE
        if not path.is_file():
            return None
        stored = read_mapping(path, HINT)
        with readable(path, HINT):
            return cls.model_validate(stored)

    def write(self, folder: Path) -> None:
        write_text_atomically(folder / NIGHT_FILE, self.model_dump_json(indent=2) + "\n")

    def begin(self, folder: Path) -> Night:
        """Notes that the night begins, or goes on after a crash: then it keeps its first beginning."""
        began = self.began if self.began and not self.ended else now()
        night = self.model_copy(update={"began": began, "ended": "", "state": "", "message": ""})
        night.write(folder)
        return night

    def end(self, folder: Path, state: NightState, message: str = "", ended: str = "") -> None:
        """Notes what became of the night; ``ended`` is the time if it isn't now."""
        self.model_copy(update={"ended": ended or now(), "state": state, "message": message}).write(folder)

    @property
    def described(self) -> str:
        """What the night starts from, in words."""
        if self.parent is not None:
            return f"continues {self.parent.run} (step {self.parent.step})"
        return "starts anew" if self.start == "anew" else "starts anew: no earlier night has finished its training"
