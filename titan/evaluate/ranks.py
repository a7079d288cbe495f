"""torchrun's processes as one evaluation: rank 0 runs lm-eval and hands out batches, every rank computes its share.

lm-eval's own data parallelism splits the documents, so that batches, and with them the last digits, depend on the
number of ranks, a task with fewer documents than ranks fails, and on a CPU each rank computes everything. Here the
batches are the same for any number of ranks, and only where one is computed differs: the results are equal to the
bit. Datasets are loaded, tasks run and files written on rank 0 alone.
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

from titanflow.run.torchrun import forget_ranks

LOAD = "load"
"""The order to load a model; any other names a method of the model that is loaded."""
PATIENCE = timedelta(hours=1)
"""How long a rank waits for another that computes its share, as large as its own, or for rank 0's next order, before
which that may load a dataset. One that died is torchrun's to notice, and it ends the others."""
SILENT = re.compile(r"Ranks? ([\d, ]+) failed to pass monitoredBarrier")


@dataclass(frozen=True)
class Ranks:
    """This process's place among torchrun's: the global rank, and the one on its machine, which chooses the device."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """What torchrun says; a process that it didn't start is alone."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, "0101", strict=True)))

    def join(self) -> None:
        """Waits for the other ranks; torchrun's variables go, so that no library looks for ranks of its own.

        The group is gloo's on any device: what goes between ranks is token ids, texts and scores.
        """
        if self.size > 1:
            from torch import distributed

            distributed.init_process_group("gloo", timeout=PATIENCE)
        forget_ranks()

    def load(self, load: Callable[[Any, Ranks], Any], settings: Any) -> Any:
        """On rank 0: has every rank load a model; returns this rank's."""
        self._tell((LOAD, settings))
        return load(settings, self)

    def compute(self, method: Callable[[Any], Any], batches: Sequence[Any], title: str = "") -> list[Any]:
        """On rank 0: what a method of the loaded model returns for each batch, computed by all ranks in turn.

        Raises:
            TimeoutError: a rank didn't come to the end of its share; names it.
            ConnectionError: a rank is gone; names it if it can.
        """
        from tqdm import tqdm

        self._tell((method.__name__, list(batches)))
        own = [method(batch) for batch in tqdm(batches[:: self.size], desc=title)]
        if self.size == 1:
            return own
        from torch import distributed

        gathered: list[Any] = [None] * self.size
        self._meet()
        distributed.gather_object(own, gathered)
        results: list[Any] = [None] * len(batches)
        for rank, part in enumerate(gathered):
            results[rank :: self.size] = part
        return results

    def serve(self, load: Callable[[Any, Ranks], Any]) -> None:
        """On any other rank: does what rank 0 asks for until it says that there is no more.

        Raises:
            TimeoutError: rank 0 doesn't answer.
            ConnectionError: it is gone.
        """
        from torch import distributed

        model = None
        while (order := self._hear()) is not None:
            name, content = order
            if name == LOAD:
                # The one before goes first: two may not fit.
                model = None
                model = load(content, self)
            else:
                method = getattr(model, name)
                own = [method(batch) for batch in content[self.rank :: self.size]]
                self._meet()
                distributed.gather_object(own)
        distributed.destroy_process_group()

    def end(self) -> None:
        """On rank 0: lets the other ranks go."""
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

    def _meet(self) -> None:
        """Waits until every rank is here: of all of gloo's waits the one that knows who isn't."""
        from torch import distributed

        with _naming("0" if self.rank else None):
            distributed.monitored_barrier(timeout=PATIENCE, wait_all_ranks=True)


@contextlib.contextmanager
def _naming(awaited: str | None) -> Iterator[None]:
    """Gives gloo's errors the rank that was waited for, where gloo itself names none."""
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
