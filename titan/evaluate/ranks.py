"""One evaluation on torchrun's processes: rank 0 runs lm-eval and hands out batches, every rank computes its share.

lm-eval's own data parallelism splits the documents. Its batches, and so the last digits, depend on the number of ranks;
a task with fewer documents than ranks fails; and on a CPU each rank computes everything. Here the batches are the same
for any number of ranks, so the results are equal to the bit. Only rank 0 loads datasets, runs tasks and writes files.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from titanflow.runs.torchrun import forget_ranks

LOAD = "load"
"""The order to load a model; any other order is the name of a method of the loaded model."""
PATIENCE = timedelta(hours=1)
"""How long a rank waits for another's share, as large as its own, or for rank 0, which may load a dataset before its
next order. If a rank dies, torchrun notices and ends the others."""
SILENT = re.compile(r"Ranks? ([\d, ]+) failed to pass monitoredBarrier")


@dataclass(frozen=True)
class Ranks:
    """This process's place among torchrun's; ``local_rank`` is the one on its machine, which chooses the device."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """Reads torchrun's variables; a process that torchrun didn't start is alone."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, "0101", strict=True)))

    def join(self) -> None:
        """Waits for the other ranks, and unsets torchrun's variables, lest a library form a group of its own."""
        if self.size > 1:
            from torch import distributed

            # gloo on any device: the ranks exchange only token ids, texts and scores.
            distributed.init_process_group("gloo", timeout=PATIENCE)
        forget_ranks()

    def load(self, load: Callable[[Any, Ranks], Any], settings: Any) -> Any:
        """On rank 0: has every rank load a model; returns this rank's."""
        self._tell((LOAD, settings))
        return load(settings, self)

    def compute(self, method: Callable[[Any], Any], batches: Sequence[Any], title: str = "") -> list[Any]:
        """On rank 0: has all ranks call a method of the loaded model on their share of the batches.

        Raises :class:`TimeoutError` or :class:`ConnectionError`, with the late or lost rank where gloo knows it.
        """
        from tqdm import tqdm

        self._tell((method.__name__, list(batches)))
        own = [method(batch) for batch in tqdm(batches[:: self.size], desc=title)]
        if self.size == 1:
            return own
        results: list[Any] = [None] * len(batches)
        for rank, part in enumerate(self._gather(own)):
            results[rank :: self.size] = part
        return results

    def serve(self, load: Callable[[Any, Ranks], Any]) -> None:
        """On any other rank: follows rank 0's orders until there are no more; raises as :meth:`compute` does."""
        from torch import distributed

        model = None
        while (order := self._hear()) is not None:
            name, content = order
            if name == LOAD:
                # Frees the previous model first: two may not fit.
                model = None
                model = load(content, self)
            else:
                method = getattr(model, name)
                self._gather([method(batch) for batch in content[self.rank :: self.size]])
        distributed.destroy_process_group()

    def end(self) -> None:
        """On rank 0: ends :meth:`serve` on the other ranks."""
        if self.size > 1:
            from torch import distributed

            self._tell(None)
            distributed.destroy_process_group()

    def _tell(self, order: Any) -> None:
        if self.size > 1:
            from torch import distributed

            distributed.broadcast_object_list([order])

    def _hear(self) -> Any:
        from torch import distributed

        heard: list[Any] = [None]
        with _naming("0"):
            distributed.broadcast_object_list(heard)
        return heard[0]

    def _gather(self, own: list[Any]) -> list[Any]:
        """On rank 0: each rank's share."""
        from torch import distributed

        # Of gloo's operations only this barrier reports which rank is missing.
        with _naming("0" if self.rank else None):
            distributed.monitored_barrier(timeout=PATIENCE, wait_all_ranks=True)
        gathered: list[Any] = [] if self.rank else [None] * self.size
        distributed.gather_object(own, gathered or None)
        return gathered


@contextlib.contextmanager
def _naming(awaited: str | None) -> Iterator[None]:
    """Names the missing rank in gloo's errors: the one that gloo reports, else ``awaited``."""
    began = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        found = SILENT.search(str(error))
        named = found[1] if found else awaited
        who = f"rank {named}" if named else "another rank"
        # gloo counts whole milliseconds.
        if time.monotonic() - began > 0.99 * PATIENCE.total_seconds():
            raise TimeoutError(f"Timed out waiting {PATIENCE / timedelta(milliseconds=1):.0f}ms for {who}") from error
        raise ConnectionError(f"Connection closed by peer: {who}") from error
