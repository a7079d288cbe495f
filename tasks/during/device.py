"""Where checkpoints are scored while their training runs: a GPU that no stage has, or the cores that are left."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.process.device_lock import PLACE, VISIBLE, gpu_names, opened
from titanflow.common.file_lock import sign, take
from titanflow.config.device import this_machine
from titanflow.files.cgroups import usable_cores
from titanflow.runs.contract import StageRun

NICE = ("nice", "-n", "19")
"""A process that gives way to the training wherever both want a core."""


def spare_cores(training: StageRun, threads: int) -> int:
    """The cores that the training's threads leave, at least one; each of its processes has so many ``threads``."""
    processes = int((training.config.get("launcher") or {}).get("nproc_per_node") or 1)
    return max(1, usable_cores() - processes * threads)


@contextlib.contextmanager
def own_device(training: StageRun, wanted: str, place: Path | None = None) -> Iterator[dict[str, str]]:
    """Variables for a process beside the training, which say its GPU: none for ``cpu``, or if none is left.

    ``wanted`` is the key ``during.device``. A GPU that is taken is locked as a stage's.
    """
    if wanted == "shared":
        yield {}
        return
    machine = this_machine()
    with contextlib.ExitStack() as stack:
        for gpu in gpu_names(machine)[_taken(training) :] if wanted == "auto" else ():
            file = stack.enter_context(opened(place or Path(tempfile.gettempdir()) / PLACE, gpu))
            if not take(file):
                sign(file, f"scores of {training.experiment}/{training.run} (process {os.getpid()})")
                yield {VISIBLE: gpu}
                return
        yield {VISIBLE: ""}


def _taken(training: StageRun) -> int:
    """How many of the machine's GPUs, the first ones, the training computes on."""
    launcher = training.config.get("launcher") or {}
    return 0 if launcher.get("device") == "cpu" else int(launcher.get("nproc_per_node") or 1)


def beside(training: StageRun, environment: Mapping[str, str]) -> dict[str, str]:
    """The threads of a process beside the training, whose own environment is given."""
    return {"OMP_NUM_THREADS": str(spare_cores(training, int(environment.get("OMP_NUM_THREADS") or 1)))}
