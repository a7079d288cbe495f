"""The reference's log-probabilities of all answers: made once from the stage's base, and kept beside the data.

A folder ``reference-<fingerprint>`` of the workspace's data has ``logps.npy``, float32 ``[pairs, 2]``, and
``reference.json``, written last. The fingerprint is that of the base's weights, of the rows, in which tokenizer and
template are, and of the types that the stage computes in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torchtitan.tools.logging import logger

from titan.train.dataloader import Batch
from titan.train.prefer.sides import PAIRS
from titanflow.architectures.outside_base import read_base
from titanflow.common.digests import digest
from titanflow.common.errors import ConfigError, Problem
from titanflow.common.staging import staged_folder
from titanflow.files.own_files import readable
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import checkpoint_digest

LOGPS_FILE = "logps.npy"
FACTS_FILE = "reference.json"
SAMPLED = 16
"""Rows of the data that each start computes again, at least one for each rank."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
"""How far a token's log-probability may be from the kept one, in nats, by the type that is computed in: kernels and
numbers of ranks differ by less."""

Score = Callable[[dict[str, torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Gives what :func:`titan.train.prefer.loss.answer_logps` does for a batch's inputs and labels."""


@dataclass(frozen=True)
class Place:
    """Where the reference's log-probabilities of some rows are kept, and what they depend on."""

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def of(cls, run: StageRun, rows: Path, config: Any) -> Place:
        """The place for a stage's rows in the folder ``rows``; ``config`` is its job config."""
        training = config.training
        facts = {
            "base": run.base_digest or _base_digest(run),
            "rows": rows.name,
            "dtype": training.dtype,
            "computes_in": training.mixed_precision_param,
            "converters": sorted(set(config.model.converters) - {"lora", "document_attention"}),
        }
        return cls(rows.parent / f"reference-{digest(facts)}", facts)

    @property
    def is_there(self) -> bool:
        return (self.folder / FACTS_FILE).is_file()

    def read(self) -> torch.Tensor:
        """The kept log-probabilities, ``[pairs, 2]``.

        Raises:
            DataError: the file is damaged.
        """
        with readable(self.folder / LOGPS_FILE, self.hint):
            return torch.from_numpy(np.load(self.folder / LOGPS_FILE))

    def write(self, logps: torch.Tensor, seconds: float) -> None:
        with staged_folder(self.folder, FACTS_FILE) as folder:
            np.save(folder / LOGPS_FILE, logps.cpu().numpy())
            facts = {**self.facts, "pairs": len(logps), "seconds": round(seconds, 1)}
            (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @property
    def hint(self) -> str:
        return f"remove the folder {self.folder}: the stage makes it again from its base"


def _base_digest(run: StageRun) -> str:
    """The digest of the base's weights where no task noted it."""
    base = read_base(run.base) if run.base else None
    return checkpoint_digest(base.checkpoint) if base is not None and base.checkpoint is not None else ""


def reference_logps(
    place: Place, pairs: int, batches: Iterable[Batch], sample: Iterable[Batch], score: Score, mesh: Any
) -> torch.Tensor:
    """The reference's log-probabilities of ``pairs`` pairs, ``[pairs, 2]``; kept ones are compared with a sample's.

    The model has its base's weights. All ranks call this, each with its share of the ``batches``; ``mesh`` holds the
    ranks with other shares, None where there are none.

    Raises:
        ConfigError: the kept log-probabilities aren't this base's.
        DataError: they can't be read.
    """
    started = time.perf_counter()
    is_there = _told_by_first(place.is_there)
    if is_there:
        kept = place.read()
        if kept.shape != (pairs, 2):
            raise ConfigError(Problem(f"{place.folder} is of {len(kept)} pairs, not {pairs}", hint=place.hint))
        _compare(place, kept, *_computed(pairs, sample, score, mesh))
        return kept
    logps, _, _ = _computed(pairs, batches, score, mesh)
    seconds = time.perf_counter() - started
    if dist.get_rank() == 0:
        place.write(logps, seconds)
        logger.info(f"The base's log-probabilities of {pairs:,} pairs took {seconds:.1f} s; kept in {place.folder}")
    return logps.cpu()


@torch.no_grad()
def _computed(
    pairs: int, batches: Iterable[Batch], score: Score, mesh: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The log-probabilities and tokens of each answer, ``[pairs, 2]``, and whether a pair is among the ``batches``."""
    logps, tokens, seen = torch.zeros(pairs, 2), torch.zeros(pairs, 2), torch.zeros(pairs)
    for input_dict, labels in batches:
        found, counted = score(input_dict, labels)
        numbers = input_dict[PAIRS]
        logps[numbers], tokens[numbers], seen[numbers] = found.float().cpu(), counted.cpu(), 1.0
    return _summed(logps, mesh), _summed(tokens, mesh), _summed(seen, mesh)


def _summed(values: torch.Tensor, mesh: Any) -> torch.Tensor:
    if mesh is None:
        return values
    from torchtitan.tools import utils

    moved = values.to(utils.device_type)
    dist.all_reduce(moved, group=mesh.get_group())
    return moved.cpu()


def _compare(place: Place, kept: torch.Tensor, logps: torch.Tensor, tokens: torch.Tensor, seen: torch.Tensor) -> None:
    """Refuses kept log-probabilities that the base, as it is loaded now, doesn't have."""
    apart_by = (kept - logps).abs() / tokens.clamp(min=1)
    worst = float(apart_by[seen > 0].max()) if bool((seen > 0).any()) else 0.0
    allowed = TOLERANCES.get(place.facts["computes_in"], TOLERANCES["bfloat16"])
    if not worst <= allowed:
        found = f"the base's log-probabilities in {place.folder} are {worst:.2g} nats a token from those of now"
        raise ConfigError(Problem(found, expected=f"at most {allowed:g}", hint=place.hint))
    count = int((seen > 0).sum())
    logger.info(f"The base's log-probabilities are those of {place.folder}: {count} pairs, at most {worst:.1g} apart")


def _told_by_first(value: bool) -> bool:
    """The first rank's value: another may look at a file system that shows a new folder later."""
    told = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(told, src=0)
    return told[0]
