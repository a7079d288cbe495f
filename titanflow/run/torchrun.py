"""torchrun, which starts each stage: its arguments, and how its ranks live with it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping
from typing import Any

MODULE = "torch.distributed.run"
"""The module behind the command ``torchrun``."""
PR_SET_PDEATHSIG = 1
RUN_ID = "TORCHELASTIC_RUN_ID"
"""An environment variable that each of torchrun's ranks has."""
RANK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
"""Environment variables of ranks, beside those that begin with ``TORCHELASTIC_``."""
DEFAULTS = "PET_"
"""Prefix of environment variables from which torchrun takes options that its command line lacks."""
MEETING_POINT, MEETING_ID = f"{DEFAULTS}RDZV_ENDPOINT", f"{DEFAULTS}RDZV_ID"
"""Those by which a cluster's job says where its machines meet, which nobody knows before it runs."""


def arguments(launcher: Mapping[str, Any] | None) -> list[str]:
    """torchrun's arguments, by a stage's section ``launcher``; without one the stage has one process."""
    launcher = launcher or {"kind": "local", "nproc_per_node": 1, "nnodes": 1}
    processes, machines = launcher["nproc_per_node"], launcher["nnodes"]
    given = [f"--nproc_per_node={processes}"]
    if machines == 1:
        # Ranks that look for this machine by its name wait without an end in a container that can't resolve it.
        given += ["--standalone", "--local-addr=localhost"]
    else:
        given += [f"--nnodes={machines}", "--rdzv_backend=c10d"]
        if launcher["kind"] == "local":
            given += [f"--node_rank={launcher['node_rank']}", f"--rdzv_endpoint={launcher['rdzv_endpoint']}"]
    if processes * machines > 1:
        # Every rank logs the same lines, so one rank's are enough. A failing rank writes error.json itself.
        given += ["--local-ranks-filter=0", "--role=rank", "--tee=3"]
    return given


def end_with_torchrun() -> None:
    """Has the kernel send SIGTERM to this process, if it is a rank, when its torchrun ends in any way."""
    if RUN_ID in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def forget_ranks() -> None:
    """Removes torchrun's variables from the environment, so that no library or child takes itself for a rank."""
    for name in list(os.environ):
        if name in RANK_VARIABLES or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
