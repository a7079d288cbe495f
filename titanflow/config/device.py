"""The device that a stage will run on, found without torch: from the config, or from the drivers' files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

NVIDIA = "nvidia[0-9]*"
AMD = "kfd"
WSL = "dxg"


@dataclass(frozen=True)
class Device:
    """A kind of device, how many there are (one for each process; None if unknown), and how that was found out."""

    kind: Literal["cpu", "cuda"]
    count: int | None = None
    found: str = ""


def stage_device(launcher: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Device | None:
    """The device that a stage's launcher asks for; ``auto`` is this machine's.

    None where the stage runs on several machines or as a cluster's job, since this one may not be among them.
    """
    asked = launcher.get("device", "auto")
    if asked == "cpu":
        return Device("cpu", found="launcher.device is cpu")
    if asked == "cuda":
        return Device("cuda", found="launcher.device is cuda")
    return None if runs_elsewhere(launcher) else this_machine(environ)


def runs_elsewhere(launcher: Mapping[str, Any]) -> bool:
    """Whether a stage runs on several machines or as a cluster's job."""
    return bool(launcher.get("nnodes", 1) > 1 or launcher.get("kind", "local") != "local")


def this_machine(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> Device:
    """The device that torch would find here, known from the drivers' files."""
    if _torch_build().endswith("+cpu"):
        return Device("cpu", found=f"torch {_torch_build()} is installed")
    count = None
    if (visible := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        count = sum(name.strip() not in ("", "-1") for name in visible.split(","))
        if not count:
            return Device("cpu", found=f"CUDA_VISIBLE_DEVICES is {visible!r}")
    if nvidia := len(list(devices.glob(NVIDIA))):
        return Device("cuda", count or nvidia, f"{devices}/{NVIDIA}")
    if (devices / AMD).exists() or (devices / WSL).exists():
        return Device("cuda", count, str(devices))
    return Device("cpu", found="this machine has no GPU")


@cache
def _torch_build() -> str:
    """A plan asks ten times, and each answer takes a millisecond."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
