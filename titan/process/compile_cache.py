"""Keeps what torch compiles in the workspace, so that the next run's first step needn't compile it again."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from titanflow.common.digests import digest
from titanflow.planning.forecast.device import cpu
from titanflow.runs.contract import StageRun

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""torch's own variable, which wins if it is set. Triton's kernels lie in that folder, too."""
FOLDER = "compiled"
PACKAGES = ("torch", "triton")


def keep_compiled(run: StageRun) -> Path:
    """Names a folder of the stage's workspace to torch, and returns the folder that torch has.

    Its name holds a fingerprint of what torch's own keys leave out, or may: the versions of compilers and Python, and
    the processor, since kernels for a CPU take any instruction that it has.
    """
    made_by = [*(version(name) for name in PACKAGES), platform.python_version(), cpu().name.rpartition(" × ")[0]]
    return Path(os.environ.setdefault(CACHE, str(run.folder.absolute().parents[2] / FOLDER / digest(made_by))))
