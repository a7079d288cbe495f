"""Name, memory and peak speed of a stage's device, found without torch."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from titanflow.files.cgroups import memory_limit, usable_cores

PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    ("A100", 312e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("H20", 148e12),
    ("B200", 2.25e15),
    ("MI355X", 2500e12),
    ("MI300X", 1300e12),
    ("MI325X", 1300e12),
    ("MI250X", 191.5e12),
)
"""Peak bf16 operations a second by words of the device's name; the first match counts. From torchtitan 0.2.2
(``torchtitan.tools.utils.get_peak_flops``). The peak of any other device is unknown and isn't guessed."""

ASK_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
PATIENCE = 2.0
"""Seconds that nvidia-smi may take: a plan waits for it."""
MIB = 1 << 20


@dataclass(frozen=True)
class DeviceSpec:
    """One device: a GPU, or all of this machine's CPU.

    ``memory`` is in bytes: a GPU's own, or what this machine's processes may use together; None if unknown.
    ``peak_flops`` is None for a CPU and for unknown GPUs.
    """

    kind: Literal["cpu", "cuda"]
    name: str
    memory: int | None = None
    cores: int = 0

    @property
    def peak_flops(self) -> float | None:
        """Peak bf16 operations a second."""
        if self.kind == "cpu":
            return None
        return next((peak for words, peak in PEAK_FLOPS if all(word in self.name for word in words.split())), None)


@cache
def cpu() -> DeviceSpec:
    """This machine's CPU and memory, as far as this process may use them."""
    cores = usable_cores()
    return DeviceSpec("cpu", f"{_cpu_model()} × {cores}", memory_limit(), cores)


@cache
def gpus() -> tuple[DeviceSpec, ...]:
    """The GPUs that nvidia-smi shows, in its order; none if it isn't there or doesn't answer."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return ()
    try:
        done = subprocess.run(ASK_NVIDIA, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(answer: str) -> tuple[DeviceSpec, ...]:
    """Parses nvidia-smi's lines, ``name, MiB`` each; the memory may be unknown."""
    lines = [line.rpartition(",") for line in answer.splitlines() if "," in line]
    return tuple(
        DeviceSpec("cuda", name.strip(), int(memory) * MIB if memory.strip().isdecimal() else None)
        for name, _, memory in lines
    )


def _cpu_model() -> str:
    names = (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
