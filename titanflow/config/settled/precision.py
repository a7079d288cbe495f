"""The number format of a training's matrix products that ``mixed_precision_param: auto`` stands for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from titanflow.config.checks.processes.parallelism import is_sharded
from titanflow.config.device import runs_elsewhere, stage_device
from titanflow.config.module import Module
from titanflow.runs.checkpoints import newest_step
from titanflow.runs.contract import RESULT_FILE, StageRun

KEY = "training.mixed_precision_param"
AUTO = "auto"
CPUINFO = Path("/proc/cpuinfo")


class Precision(NamedTuple):
    """A number format by torch's name, and why it is the one."""

    dtype: str
    why: str


@cache
def cpu_precision(cpuinfo: Path = CPUINFO) -> Precision:
    """The faster format on this CPU, by what ``benchmarks/precision.py`` measured; both are safe.

    Instructions for bfloat16 alone say little: without AMX, Intel's ``avx512_bf16`` does half of the operations a
    second that float32 does, while AMD's does twice as many. Where nothing was measured, float32 is taken.
    """
    vendor, flags = _cpu_facts(cpuinfo)
    if "amx_bf16" in flags:
        return Precision("bfloat16", "this CPU has amx_bf16")
    if "avx512_bf16" not in flags:
        return Precision("float32", "this CPU has neither amx_bf16 nor avx512_bf16")
    if vendor == "AuthenticAMD":
        return Precision("bfloat16", "this CPU is AMD's and has avx512_bf16")
    return Precision("float32", "this CPU has avx512_bf16 without amx_bf16, and float32 is faster")


def _cpu_facts(cpuinfo: Path) -> tuple[str, set[str]]:
    """Vendor and flags of the first core; empty where the kernel tells none, as on ARM."""
    found: dict[str, str] = {}
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                found[name.strip()] = value.strip()
    except OSError:
        pass
    return found.get("vendor_id", ""), set(found.get("flags", "").split())


def settle_precision(module: Module) -> None:
    """Replaces ``auto`` in a training module's config by the format that it stands for, and notes why."""
    if module.trains and module.value(KEY) == AUTO:
        _settle(module, _precision(module))


def keep_precision(module: Module, folder: Path) -> None:
    """Keeps the format that a stage's output in ``folder`` was made with: ``auto`` is another on another CPU."""
    is_made = KEY in module.chosen and (newest_step(folder) is not None or (folder / RESULT_FILE).exists())
    made = StageRun.of(folder) if is_made else None
    dtype = (made.config.get("training") or {}).get("mixed_precision_param") if made is not None else None
    if dtype is not None and dtype != module.value(KEY):
        _settle(module, Precision(dtype, "the stage was begun with it"))


def mixes_nothing(module: Module) -> bool:
    """Whether torchtitan computes in ``training.dtype`` whatever else is asked: it mixes only with FSDP or alone."""
    degrees = module.config["parallelism"]
    parted = degrees["tensor_parallel_degree"] > 1 or degrees["pipeline_parallel_degree"] > 1
    return parted and not is_sharded(module)


def _precision(module: Module) -> Precision:
    if module.config["training"]["dtype"] == "bfloat16":
        return Precision("bfloat16", "training.dtype is bfloat16")
    if mixes_nothing(module):
        return Precision("float32", "tensor and pipeline parallelism mix precisions only with FSDP")
    launcher = module.config["launcher"]
    if runs_elsewhere(launcher) or launcher["pool"]:
        if launcher["device"] == "cpu":
            return Precision("float32", "it runs on another machine's CPU")
        return Precision("bfloat16", "it runs on another machine, and GPUs are faster with it")
    device = stage_device(launcher)
    if device is not None and device.kind == "cuda":
        return Precision("bfloat16", "GPUs are faster with it")
    return cpu_precision()


def _settle(module: Module, precision: Precision) -> None:
    module.config["training"]["mixed_precision_param"] = precision.dtype
    module.chosen[KEY] = f"{precision.dtype} (auto: {precision.why})"
    written = module.origins.get(KEY, "").partition(f", {AUTO}: ")[0]
    module.origins[KEY] = f"{written}, {AUTO}: {precision.why}"
