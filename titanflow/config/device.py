"""What a stage will run on, told without torch: from the config, or from the files that a driver makes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

NVIDIA = "nvidia[0-9]*"
AMD = "kfd"
WSL = "dxg"


@dataclass(frozen=True)
class Device:
    """A kind of device, and how many processes can have one each (None where that can't be told).

    ``found`` says how it is known, for messages.
    """

    kind: Literal["cpu", "cuda"]
    count: int | None = None
    found: str = ""


def stage_device(launcher: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Device | None:
    """The device that a stage's launcher asks for, or for ``auto`` this machine's.

    None where the stage runs on several machines, of which this one may be none.
    """
    asked = launcher.get("device", "auto")
    if asked == "cpu":
        return Device("cpu", found="launcher.device is cpu")
    if asked == "cuda":
        return Device("cuda", found="launcher.device is cuda")
    return None if launcher.get("nnodes", 1) > 1 else this_machine(environ)


def this_machine(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> Device:
    """What torch would find here, told from the files that the drivers make."""
    if _torch_build().endswith("+cpu"):
        return Device("cpu", found=f"torch {_torch_build()} is installed")
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
        if not named:
            return Device("cpu", found=f"CUDA_VISIBLE_DEVICES is {visible!r}")
    nvidia = len(list(devices.glob(NVIDIA)))
    if nvidia:
        return Device("cuda", len(named) if visible is not None else nvidia, f"{devices}/{NVIDIA}")
    if (devices / AMD).exists() or (devices / WSL).exists():
        return Device("cuda", len(named) if visible is not None else None, str(devices))
    return Device("cpu", found="this machine has no GPU")


def _torch_build() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
