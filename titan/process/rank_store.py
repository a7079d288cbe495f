"""What ranks tell each other before there is a process group: through the store of their torchrun."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from functools import cache

from torch.distributed import Store, rendezvous

SECONDS = 3600.0
"""How long a rank may take for its part: it may have to read its share of a large checkpoint."""


def told_by_all(about: str, own: str) -> list[str]:
    """What each rank tells about something, by rank; every rank calls it, once for each ``about``.

    The first rank collects, so that the store answers two requests a rank and not one for each pair of ranks.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return [own]
    store, rank = _store()
    store.set(f"titanflow/{about}/{rank}", own)
    if rank == 0:
        told = [store.get(f"titanflow/{about}/{one}").decode() for one in range(ranks)]
        store.set(f"titanflow/{about}", json.dumps(told))
    return list(json.loads(store.get(f"titanflow/{about}")))


@cache
def _store() -> tuple[Store, int]:
    # It is kept: without a torchrun the first rank holds the store itself, and a process group then shares it.
    store, rank, _ = next(rendezvous("env://", timeout=timedelta(seconds=SECONDS)))
    return store, rank
