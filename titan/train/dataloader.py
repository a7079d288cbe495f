"""Training rows as torchtitan's data loader: the batch at a step is a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.config.job_config import DataLoader as DataLoaderConfig

from titan.train.prefer.sides import with_sides, without_pairs
from titanflow.common.errors import ConfigError, Problem
from titanflow.data.order import Course, Order, Shuffled
from titanflow.data.prepared import Row

ROWS_SEEN = "rows_seen"
WIDTH = 8
"""The width of a trimmed batch is a multiple of so many columns."""

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]
"""``{"input": int64 [batch, seq_len]}``, with ``"positions"`` for packed rows, and ``labels``, all of that shape. For
pairs the batch has two rows for each of the data's, and :data:`titan.train.prefer.sides.KEYS` beside them."""


class Rows(Protocol):
    """Rows by number: :class:`titanflow.data.prepared.PreparedRows`, or :class:`MockRows`."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Row: ...

    def order(self, seed: int, course: Course | None = None) -> Order: ...


class MockRows:
    """Random tokens for ``training.mock_data``; a row's number decides its tokens."""

    def __init__(self, vocab_size: int, seq_len: int, rows: int = 1 << 20) -> None:
        self.vocab_size = vocab_size
        self.seq_len = seq_len
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def row(self, index: int) -> Row:
        """Row ``index``: ``seq_len`` tokens drawn uniformly, and the tokens that follow them."""
        tokens = np.random.default_rng(index).integers(self.vocab_size, size=self.seq_len + 1)
        return Row(tokens[:-1], tokens[1:])

    def order(self, seed: int, course: Course | None = None) -> Order:
        return Shuffled(self.rows, seed)


class RowDataset(Dataset[Any]):
    """Rows for torch's ``DataLoader``, fetched a batch at a time; row -1 trains nothing."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> Row:
        if index >= 0:
            return self.rows.row(index)
        row = self.rows.row(0)
        return without_pairs(row)._replace(labels=np.full_like(row.labels, IGNORE_INDEX))


def collate(rows: list[Row]) -> Batch:
    return with_sides(rows, *_joined(rows))


def _joined(rows: list[Row]) -> Batch:
    """The rows as one batch, in which a row of pairs has two rows."""
    join = np.concatenate if rows[0].pairs is not None else np.stack
    inputs = {"input": torch.from_numpy(join([row.input_ids for row in rows]))}
    if any(row.positions is not None for row in rows):
        positions = [_positions(row) for row in rows]
        inputs["positions"] = torch.from_numpy(join(positions))
    return inputs, torch.from_numpy(join([row.labels for row in rows]))


def _positions(row: Row) -> NDArray[np.int64]:
    whole = np.broadcast_to(np.arange(row.labels.shape[-1]), row.labels.shape)
    return whole if row.positions is None else row.positions


def collate_trimmed(rows: list[Row]) -> Batch:
    """Stacks rows up to the last label that any of them trains, rounded up to a multiple of :data:`WIDTH`.

    No token sees a later one, so loss and gradients are those of the whole rows. Short conversations save half of
    their batch, which is padding.
    """
    inputs, labels = _joined(rows)
    trained = (labels != IGNORE_INDEX).any(dim=0).nonzero()
    last = int(trained[-1]) + 1 if len(trained) else 1
    width = -(-last // WIDTH) * WIDTH
    return with_sides(rows, {name: values[:, :width] for name, values in inputs.items()}, labels[:, :width])


def batches(
    rows: Rows, indices: Iterator[list[int]], settings: DataLoaderConfig, trim: bool = False
) -> Iterator[Batch]:
    """Batches of the given row numbers through torch's ``DataLoader``, with the config's workers and pinning."""
    workers = settings.num_workers
    return iter(
        DataLoader(
            RowDataset(rows),
            batch_sampler=indices,
            collate_fn=collate_trimmed if trim else collate,
            num_workers=workers,
            pin_memory=settings.pin_memory,
            persistent_workers=settings.persistent_workers and workers > 0,
            prefetch_factor=settings.prefetch_factor if workers > 0 else None,
        )
    )


def rank_slice(batch: NDArray[np.int64], accumulation: int, rank: int, ranks: int) -> NDArray[np.int64]:
    """Rank ``rank``'s part of a global batch, ``[accumulation, local_batch_size]``.

    Microbatch ``a`` of rank ``r`` takes ``b`` rows from ``a * ranks * b + r * b`` on, so another number of ranks, with
    accumulation to match, doesn't change the batch.
    """
    return batch.reshape(accumulation, ranks, -1)[:, rank]


class PreparedDataLoader(BaseDataLoader):
    """One rank's batches without end, from the position in its state.

    The state is how many rows all ranks together have seen. It is the same on each rank, so any number of ranks can
    resume. The first ``skip_rows`` of the order are left out: an earlier training has seen them. Only a mixture with
    phases needs ``steps``, the training's. ``by_length`` makes batches of rows of similar lengths.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        local_batch_size: int,
        global_batch_size: int,
        rank: int,
        ranks: int,
        seed: int,
        skip_rows: int = 0,
        steps: int = 0,
        settings: DataLoaderConfig | None = None,
        trim: bool = False,
        by_length: bool = False,
    ) -> None:
        self.rows = rows
        self.trim = trim
        self.skip_rows = skip_rows
        self.global_batch_size = global_batch_size if global_batch_size > 0 else local_batch_size * ranks
        self.accumulation = max(self.global_batch_size // (local_batch_size * ranks), 1)
        self.rank = rank
        self.ranks = ranks
        self.order = rows.order(seed, Course(steps, self.global_batch_size, skip_rows, by_length))
        self.settings = settings or DataLoaderConfig()
        self.rows_seen = 0

    def __iter__(self) -> Iterator[Batch]:
        local = batches(self.rows, self._indices(self.rows_seen // self.global_batch_size), self.settings, self.trim)
        while True:
            for microbatch in range(self.accumulation):
                batch = next(local)
                if microbatch == self.accumulation - 1:
                    self.rows_seen += self.global_batch_size
                yield batch

    def _indices(self, step: int) -> Iterator[list[int]]:
        while True:
            positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size, dtype=np.int64)
            batch = self.order.at(self.skip_rows + positions)
            yield from rank_slice(batch, self.accumulation, self.rank, self.ranks).tolist()
            step += 1

    def shares(self) -> dict[str, float]:
        """Each source's share of the tokens so far, for a mixture."""
        return self.order.shares(self.skip_rows + self.rows_seen)

    def state_dict(self) -> dict[str, Any]:
        return {ROWS_SEEN: self.rows_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after so many rows; refuses them where they don't end at a batch of the present size."""
        seen = int(state_dict[ROWS_SEEN])
        if seen % self.global_batch_size:
            raise ConfigError(
                Problem(
                    f"the checkpoint has seen {seen} rows, which is no multiple of the global batch of "
                    f"{self.global_batch_size}: the next batch would start in the middle of one that was trained",
                    key="training.global_batch_size",
                    hint="keep the global batch size that the run was started with",
                )
            )
        self.rows_seen = seen


class ValidationLoader(BaseDataLoader):
    """All validation rows once (or those of one process's first ``steps`` batches), in order, shared out to the ranks.

    Every rank has the same number of batches; rows that train nothing fill up the last ones.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        local_batch_size: int,
        rank: int,
        ranks: int,
        steps: int = -1,
        settings: DataLoaderConfig | None = None,
        trim: bool = False,
    ) -> None:
        self.rows = rows
        self.trim = trim
        self.local_batch_size = local_batch_size
        self.rank = rank
        self.ranks = ranks
        self.count = len(rows) if steps < 0 else min(steps * local_batch_size, len(rows))
        self.steps = -(-self.count // (local_batch_size * ranks))
        self.settings = settings or DataLoaderConfig()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.rows, self._indices(), self.settings, self.trim)

    def _indices(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            start = (step * self.ranks + self.rank) * self.local_batch_size
            span = range(start, start + self.local_batch_size)
            yield [index if index < self.count else -1 for index in span]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: every validation starts at the first row."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
