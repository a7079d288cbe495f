"""Lets torchtitan train on a machine without an accelerator."""

from __future__ import annotations

import platform
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from titan.patches.patch import Patch, PatchContext

if TYPE_CHECKING:
    import torch


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def make_device_module() -> ModuleType:
    """``torch.cpu`` with the functions that torchtitan expects of a device module: name, memory, number.

    The memory is the process's: "active" is what it holds now, "reserved" its peak.
    """
    import psutil
    import torch

    from titan.process.peak_memory import resident_peak_bytes

    class CpuDevice(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.cpu, name)

        def get_device_name(self, device: torch.device | None = None) -> str:
            return processor_name()

        def get_device_properties(self, device: torch.device | None = None) -> SimpleNamespace:
            return SimpleNamespace(total_memory=psutil.virtual_memory().total)

        def memory_stats(self, device: torch.device | None = None) -> dict[str, int]:
            resident = psutil.Process().memory_info().rss
            return {
                "active_bytes.all.peak": resident,
                "reserved_bytes.all.peak": resident_peak_bytes() or resident,
                "num_alloc_retries": 0,
                "num_ooms": 0,
            }

        def reset_peak_memory_stats(self) -> None:
            pass

        def empty_cache(self) -> None:
            pass

        def current_device(self) -> int:
            # torch.cpu answers "cpu", which barrier(device_ids=…) refuses.
            return 0

    return CpuDevice("torch.cpu")


SAYS_NOTHING = (
    "In CPU autocast, but the target dtype is not supported",
    "DTensor random operators may not have complete support on cpu",
    r"DTensor manual_seed\(\) may not have complete support on cpu",
    "Set timeout is now only supported for either nccl or gloo",
)
"""Needless warnings of every run on a CPU: fp32 needs no autocast, titan.train.data_parallel draws the weights, and the
group without a timeout is torchtitan's own fake one."""


def needed() -> bool:
    from torch._utils import _get_available_device_type
    from torchtitan.tools.utils import get_device_info

    return _get_available_device_type() is None and bool(get_device_info()[0] != "cpu")


def apply(context: PatchContext) -> None:
    """Replaces CUDA in every torchtitan module that has already looked up its device."""
    from torchtitan.tools import utils

    if utils.device_type == "cpu":
        return
    for message in SAYS_NOTHING:
        warnings.filterwarnings("ignore", message)
    device_module = make_device_module()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "torchtitan":
            continue
        if hasattr(module, "device_type"):
            module.device_type = "cpu"  # type: ignore[attr-defined]
        if hasattr(module, "device_module"):
            module.device_module = device_module  # type: ignore[attr-defined]


PATCH = Patch(
    name="cpu_device",
    target="torchtitan.tools.utils.device_type, device_module",
    what="'cpu', and torch.cpu with the functions that torchtitan asks of a device module",
    why=(
        "without an accelerator torchtitan takes 'cuda' and stops; torch.cpu lacks get_device_name, "
        "get_device_properties, memory_stats, reset_peak_memory_stats and empty_cache, and its current_device() "
        "is a string, which barrier() refuses after the first step"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
