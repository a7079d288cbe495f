"""Decodes the prepared rows that stages trained on, including those of the stages that they began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from titanflow.common.errors import DataError
from titanflow.config.means.recipe import averaged_stages
from titanflow.data.dataset_info import read_info
from titanflow.data.prepared import OFFSETS_FILE, TOKENS_FILE, mapped
from titanflow.data.tokenizer.tokenizer import TOKENIZER_FILE, load_tokenizer
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrainResult, result_of
from titanflow.runs.training import Training

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 1 << 18
"""Tokens that are decoded at a time."""
PIECE = 1 << 15
OVERLAP = 1 << 9
"""Tokens that each piece of a long document shares with the previous one, so that no wording is cut."""


@dataclass(frozen=True)
class TrainedRows:
    """A folder of prepared rows that a stage trained on, with the tokenizer that made their tokens."""

    name: str
    folder: Path
    tokenizer: Path
    tokens: int

    def texts(self) -> Iterator[list[str]]:
        """The documents as text, in batches; long ones come in pieces that overlap."""
        backend = load_tokenizer(self.tokenizer).backend
        tokens = mapped(self.folder, TOKENS_FILE)
        batch, size = list[list[int]](), 0
        for first, last in _pieces(mapped(self.folder, OFFSETS_FILE)):
            batch.append(tokens[first:last].tolist())
            size += last - first
            if size >= BATCH:
                yield _decoded(backend, batch)
                batch, size = [], 0
        yield _decoded(backend, batch)


@dataclass
class TrainedOn:
    """The training data of some models: the rows that are there, and why other data can't be searched."""

    rows: list[TrainedRows] = field(default_factory=list)
    not_looked_at: list[str] = field(default_factory=list)
    planned: Mapping[Path, StageRun] = field(default_factory=dict)

    @classmethod
    def by(cls, models: Iterable[tuple[str, Path]], planned: Mapping[Path, StageRun] | None = None) -> TrainedOn:
        """The training data of models, given by name and folder: stages, their exports and checkpoints, or others.

        Follows each stage back to the one that it began with, as far as folders exist. ``planned`` has stages by their
        folder that may not have begun.
        """
        found = cls(planned=planned or {})
        for name, folder in models:
            found._add(name, folder, set())
        found.rows = list({rows.folder: rows for rows in found.rows}.values())
        found.not_looked_at = list(dict.fromkeys(found.not_looked_at))
        return found

    def _add(self, name: str, folder: Path, seen: set[Path]) -> None:
        stage = self.planned.get(folder) or _stage_of(folder)
        if stage is None:
            self.not_looked_at.append(f"the training data of {name}, which was trained elsewhere")
        elif stage.folder not in seen:
            self._add_rows(stage)
            for other in _averaged(stage):
                if other in stage.stages:
                    self._add(f"the model {other}, a part of {stage.stage}", stage.stages[other], {*seen, stage.folder})
            before = stage.base or (stage.config.get("checkpoint") or {}).get("initial_load_path")
            if before:
                self._add(f"the model that {stage.stage} began with", Path(before), {*seen, stage.folder})

    def _add_rows(self, run: StageRun) -> None:
        data = run.config.get("data") or {}
        folder, name = run.data.train, data.get("name") or "its data"
        if (run.config.get("training") or {}).get("mock_data"):
            return
        if folder is None or run.tokenizer is None:
            found = "it is streamed" if data.get("streaming") else "it was never prepared"
            self.not_looked_at.append(f"{name} of {run.stage}: {found}")
            return
        try:
            if not (run.tokenizer / TOKENIZER_FILE).is_file():
                raise FileNotFoundError(run.tokenizer)
            members = read_info(folder).mixture.get("members") or {name: folder}
            for place in map(Path, members.values()):
                info = read_info(place)
                self.rows.append(TrainedRows(info.name, place, run.tokenizer, info.tokens))
        except (DataError, OSError, TypeError):
            # Prepared rows may be thrown away, and another version may have written them.
            self.not_looked_at.append(f"{name} of {run.stage}: its prepared rows can't be read any more")


def _averaged(stage: StageRun) -> list[str]:
    """The stages of whose mean a training began, or of which the model in a stage's folder is the mean."""
    with suppress(DataError):
        result = result_of(stage.folder)
        made = [part.stage for part in result.mean_of] if isinstance(result, TrainResult) else []
        return [*averaged_stages(stage.config), *made]
    return averaged_stages(stage.config)


def _stage_of(folder: Path) -> StageRun | None:
    """The training stage of a model's folder: an export, a checkpoint, the stage's own folder, or what it published."""
    for place in (folder, *folder.absolute().parents[:2]):
        with suppress(DataError):
            if (training := Training.of(place) or _published(place)) is not None:
                return training.run
    return None


def _published(place: Path) -> Training | None:
    """The training whose model a publish stage's folder holds, in the same run."""
    run = StageRun.of(place)
    model = run.config.get("model") if run is not None and run.kind == "publish" else None
    return Training.of(place.parent / model) if isinstance(model, str) else None


def _pieces(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for first in range(start, max(end - OVERLAP, start + 1), PIECE - OVERLAP):
            yield first, min(first + PIECE, end)


def _decoded(backend: Tokenizer, batch: list[list[int]]) -> list[str]:
    # Special tokens stay: nothing else may separate the words around them.
    decoded: list[str] = backend.decode_batch(batch, skip_special_tokens=False)
    return decoded
