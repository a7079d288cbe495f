"""Where the sides of pairs stand in a batch: a row of pairs is two rows of a batch, chosen sides and rejected ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from titanflow.data.prepared import Row

PAIRS, LENGTHS, PLACES = KEYS = ("pairs", "lengths", "places")
"""What a batch of pairs has beside tokens and labels: the attributes of :class:`Sides`."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sides:
    """The sides of a batch's pairs.

    Attributes:
        pairs: the number of each pair in the data: int64 ``[pairs]``.
        lengths: the tokens of each stretch of the batch, row after row: answers with their prompts, and padding; int64
            ``[stretches]``.
        places: the stretches that are a pair's chosen and rejected side: int64 ``[pairs, 2]``.
    """

    pairs: torch.Tensor
    lengths: torch.Tensor
    places: torch.Tensor

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of each side's values, ``[pairs, 2]``; ``values`` has one for each of the batch's tokens.

        Each stretch is summed by itself, so that the sum is the same in each run: adding by index isn't, on a GPU.
        """
        stretches = torch.segment_reduce(values.flatten(), "sum", lengths=self.lengths, unsafe=True)
        return stretches.index_select(0, self.places.flatten()).view(-1, 2)


def with_sides(rows: list[Row], inputs: Tensors, labels: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """The batch that was made of ``rows``, with :data:`KEYS` if they hold pairs."""
    if rows[0].pairs is None:
        return inputs, labels
    width, lengths, places = labels.shape[1], list[int](), list[list[int]]()
    for row in rows:
        assert row.sides is not None
        count, first = row.sides.shape[1], len(lengths)
        # Each half has a stretch of padding behind its sides.
        places += [[first + pair, first + count + 1 + pair] for pair in range(count)]
        for half in row.sides:
            # A batch may be cut behind its last label, and a side's end with it.
            ends = np.minimum(np.cumsum(half), width).tolist()
            lengths += np.diff([0, *ends, width]).tolist()
    numbers = torch.from_numpy(np.concatenate([row.pairs for row in rows if row.pairs is not None]))
    of_sides = {PAIRS: numbers, LENGTHS: torch.tensor(lengths), PLACES: torch.tensor(places).view(-1, 2).long()}
    return {**inputs, **of_sides}, labels


def without_pairs(row: Row) -> Row:
    """A row of which nothing is trained: its tokens only fill a batch."""
    if row.pairs is None:
        return row
    return row._replace(pairs=row.pairs[:0], sides=np.zeros((2, 0), np.int64))


def apart(batch: Mapping[str, torch.Tensor]) -> tuple[Tensors, Sides]:
    """What a model takes of a batch of pairs, and where their sides stand."""
    return {name: value for name, value in batch.items() if name not in KEYS}, Sides(*(batch[key] for key in KEYS))
