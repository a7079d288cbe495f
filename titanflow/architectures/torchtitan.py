"""The settings that torchtitan and the model families accept, read from a snapshot so that a plan needs no torch.

``torchtitan-<version>.json`` is made by ``python -m titan.models.snapshot``; a test compares it with the installed
torchtitan.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError

FAMILIES = ("llama3", "llama4", "qwen3", "deepseek_v3", "gpt_oss")
"""The language model families of torchtitan 0.2.2; flux makes pictures."""


def snapshot_path(torchtitan_version: str) -> Path:
    """The file of one torchtitan version."""
    return Path(__file__).with_name(f"torchtitan-{torchtitan_version}.json")


@cache
def load_snapshot() -> dict[str, Any]:
    """The snapshot of the installed torchtitan.

    Raises:
        ConfigError: torchtitan isn't installed, or this project doesn't know its version.
    """
    try:
        installed = version("torchtitan")
    except PackageNotFoundError:
        raise ConfigError("torchtitan isn't installed; run `make plan` or `pip install -e .`") from None
    path = snapshot_path(installed)
    if not path.exists():
        known = sorted(file.stem.removeprefix("torchtitan-") for file in path.parent.glob("torchtitan-*.json"))
        raise ConfigError(
            f"torchtitan {installed} is installed, and this project knows {', '.join(known)}; "
            f"install torchtitan=={known[-1]}"
        )
    return json.loads(path.read_text(encoding="utf-8"))
