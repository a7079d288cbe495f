"""What a figure was measured on, and with what."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from frame.processes import ROOT

PACKAGES = ("torch", "torchtitan", "transformers", "trl", "peft", "datasets", "tokenizers", "lm-eval", "safetensors")
TOLD_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "i8mm", "sve")
"""Of the processor's many flags, those that the speed of matrix products hangs on."""


def machine() -> dict[str, Any]:
    """Processor, memory, GPU, versions and commit."""
    told = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in told.items()}
    flags = (told.get("flags") or told.get("Features") or "").split()
    return {
        "processor": told.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in TOLD_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "gpu": _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").replace("\n", ", ") or "none",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _said("git", "describe", "--always", "--abbrev=12", "--match=", "--dirty=+"),
    }


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
