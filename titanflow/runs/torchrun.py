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

PATIENCE = f"{DEFAULTS}SHUTDOWN_TIMEOUT"
"""That of the seconds that ranks may save after a SIGTERM, 30 by itself (torch 2.13; an older torch ignores it)."""
MEETING_SETTINGS = f"{DEFAULTS}RDZV_CONF"
"""That of how its machines meet: ``is_host=1`` on the first, how long they wait for each other."""
JOB = "TITANFLOW_JOB"
"""The variable by which a stage's processes know the id that the scheduler gave to their job."""


def arguments(config: Mapping[str, Any]) -> list[str]:
    """torchrun's arguments, by a stage's config; without a section ``launcher`` the stage has one process."""
    launcher = config.get("launcher") or {"kind": "local", "nproc_per_node": 1, "nnodes": 1}
    processes, machines = launcher["nproc_per_node"], launcher["nnodes"]
    given = [f"--nproc_per_node={processes}"]
    if machines == 1:
        # Otherwise the ranks meet by this machine's name, which many a container or laptop can't resolve.
        given += ["--standalone", "--local_addr=127.0.0.1"]
    else:
        given += [f"--nnodes={machines}", "--rdzv_backend=c10d"]
        if launcher["kind"] == "local":
            given += [f"--node_rank={launcher['node_rank']}", f"--rdzv_endpoint={launcher['rdzv_endpoint']}"]
    if processes * machines > 1:
        # Every rank logs the same lines, so one rank's are enough. A failing rank writes error.json itself.
        shown = sorted({0, metrics_rank(config, processes * machines) % processes})
        given += [f"--local-ranks-filter={','.join(map(str, shown))}", "--role=rank", "--tee=3"]
    return given


def metrics_rank(config: Mapping[str, Any], ranks: int) -> int:
    """The rank that records and logs a training's steps: in a pipeline the first of the last stage has the loss.

    torchtitan 0.2.2 decides so, too (``components/metrics.py``).
    """
    parallelism = config.get("parallelism") or {}
    stages = int(parallelism.get("pipeline_parallel_degree") or 1)
    if stages == 1 or parallelism.get("pipeline_parallel_schedule") == "ZBVZeroBubble":
        return 0
    return ranks // stages * (stages - 1)


def end_with_torchrun() -> None:
    """Has the kernel send SIGTERM to this process, if it is a rank, when its torchrun ends in any way."""
    if RUN_ID in os.environ:
        end_with_starter()


def end_with_starter() -> None:
    """Has the kernel send SIGTERM to this process when the one that started it ends in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def attempt() -> str:
    """What tells this start of a stage's ranks from any other, the same on all of them; empty outside of torchrun.

    A run's id alone may be that of each start: machines that are started by hand have torchrun's default.
    """
    return ":".join(filter(None, (os.environ.get(name) for name in (RUN_ID, "MASTER_ADDR", "MASTER_PORT"))))


def forget_ranks() -> None:
    """Removes torchrun's variables from the environment, so that no library or child takes itself for a rank."""
    for name in list(os.environ):
        if name in RANK_VARIABLES or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
