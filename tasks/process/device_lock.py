"""One stage at a time on a GPU, whether a worker or a person started it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from titanflow.common.file_lock import sign, take
from titanflow.config.device import Device, this_machine
from titanflow.runs.contract import TRAINED, StageRun

ON_DEVICES = (*TRAINED, "evaluate")
POLL_SECONDS = 1.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
PLACE = "titanflow-gpus"
"""The folder of the locks, in the system's for temporary files."""


def stage_gpus(run: StageRun, machine: Device, environ: Mapping[str, str]) -> list[str]:
    """CUDA's names of the GPUs that a stage takes; none on the CPU, if they can't be counted, or if it shares them."""
    launcher = run.config.get("launcher") or {}
    if run.kind not in ON_DEVICES or launcher.get("device") == "cpu" or launcher.get("share_device"):
        return []
    return gpu_names(machine, environ)[: launcher.get("nproc_per_node", 1)]


def gpu_names(machine: Device, environ: Mapping[str, str] = os.environ) -> list[str]:
    """CUDA's names of the GPUs that this process may use: numbers, unless the environment gives others."""
    if machine.kind != "cuda":
        return []
    if VISIBLE in environ:
        return [name.strip() for name in environ[VISIBLE].split(",") if name.strip()]
    return [str(number) for number in range(machine.count or 0)]


@contextlib.contextmanager
def device_lock(run: StageRun, say: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Holds the stage's GPUs, telling ``say`` whom it waits for; the system frees them however this process ends."""
    # In the system's folder for temporary files: the locks are this machine's, for all its users.
    place = folder or Path(tempfile.gettempdir()) / PLACE
    with contextlib.ExitStack() as stack:
        # All take them in the same order, so that no two stages wait for each other.
        for gpu in sorted(stage_gpus(run, this_machine(), os.environ)):
            file = stack.enter_context(opened(place, gpu))
            _wait_for(file, gpu, say)
            sign(file, f"{run.stage} of {run.experiment}/{run.run} (process {os.getpid()})")
        yield


def opened(place: Path, gpu: str) -> IO[str]:
    """The file of a GPU's lock, made usable for all users."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{gpu.replace('/', '-')}.lock"
    file = path.open("a+", encoding="utf-8")
    for mine, mode in ((place, 0o1777), (path, 0o666)):
        # Only the owner may change the mode: the first user makes them usable for all.
        with contextlib.suppress(PermissionError):
            mine.chmod(mode)
    return file


def _wait_for(file: IO[str], gpu: str, say: Callable[[str], None]) -> None:
    said = ""
    while holder := take(file):
        if holder != said:
            said = holder
            say(f"waiting for GPU {gpu}, on which {holder} runs (launcher.share_device: true doesn't wait)")
        time.sleep(POLL_SECONDS)
