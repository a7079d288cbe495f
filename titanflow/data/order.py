"""Which rows a step trains on: a function of the seed and the step alone, the same on any number of ranks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def permutation(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which one epoch visits ``rows`` rows.

    Drawn from ``RandomState``, whose stream numpy promises never to change (NEP 19); ``Generator`` makes no
    such promise, and a resume under a newer numpy must meet the same rows.
    """
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    order = np.random.RandomState(bits).permutation(rows).astype(np.int64)
    order.flags.writeable = False
    return order


def global_batch(step: int, batch_size: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The row indices of the global batch at ``step`` (0-based), shape ``[batch_size]``.

    Position ``p = step * batch_size + k`` of the endless stream lies in epoch ``p // rows``; the epoch's
    permutation says which row that is. A rank takes its slice of the batch, so a resume needs the step and
    nothing else.

    Raises:
        ValueError: no rows, a batch of no rows, or a negative step or seed.
    """
    if rows < 1 or batch_size < 1 or step < 0 or seed < 0:
        raise ValueError(
            f"global_batch needs rows >= 1, batch_size >= 1, step >= 0 and seed >= 0; "
            f"got rows={rows}, batch_size={batch_size}, step={step}, seed={seed}"
        )
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, within = np.divmod(positions, rows)
    batch = np.empty(batch_size, dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        chosen = epochs == epoch
        batch[chosen] = permutation(rows, seed, epoch)[within[chosen]]
    return batch
