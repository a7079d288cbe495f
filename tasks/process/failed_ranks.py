"""What happened to each rank, by torchrun's report and the ranks' own errors."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

from titanflow.runs.errors import StageError, signal_name

# torchrun always ends with 1; its report has each rank's exit status, the root cause last.
RANK_EXIT = re.compile(r"rank\s*:\s*(\d+) \(local_rank.*\n(?:.*\n){0,2}?\s*exitcode\s*:\s*(-?\d+)")

LOST_TYPES = (
    *("BrokenPipeError", "ConnectionAbortedError", "ConnectionError", "ConnectionRefusedError", "ConnectionResetError"),
    *("DistBackendError", "DistNetworkError", "DistStoreError"),
    *("ConnectTimeout", "ReadTimeout", "TimeoutError"),
)
"""Exceptions which say that another rank, or another machine, is gone or silent."""
# Messages of gloo and NCCL, in a RuntimeError or in the log of a process that NCCL aborted.
DISCONNECTED = re.compile(
    r"Connection (?:closed|reset|refused) by peer|Connection reset|Broken pipe|Socket Timeout"
    r"|remote process exited|Timed out waiting|Watchdog caught collective operation timeout"
)
# A rank of an evaluation names the rank that it waits for; gloo and NCCL don't.
AWAITED = re.compile(r"Timed out waiting \d+ms for rank ([\d, ]*\d)")
WAITED = re.compile(r"Timed out waiting (\d+)ms|Watchdog caught.*?Timeout\(ms\)=(\d+)")
MEMORY = re.compile(r"out of memory", re.IGNORECASE)


def rank_exits(log: str) -> dict[int, int]:
    """Each rank's exit status in torchrun's report, negative for a signal; the root cause last."""
    return {int(rank): int(status) for rank, status in RANK_EXIT.findall(log)}


def is_disconnected(error: StageError) -> bool:
    """Whether a rank's error only says that another process is gone or silent."""
    known = error.type.rpartition(".")[2] in LOST_TYPES or DISCONNECTED.search(error.message) is not None
    return known and not MEMORY.search(error.message)


def seconds_waited(text: str) -> float | None:
    """How long a rank waited for another before it gave up; None if it didn't."""
    found = WAITED.search(text)
    return int(found[1] or found[2]) / 1000 if found else None


def lost_peer(error: StageError, exits: Mapping[int, int]) -> str:
    """What is known of the rank that another one lost, by its error and their exit statuses; empty if nothing."""
    # When the others have given up, torchrun sends a hung rank SIGTERM, and 30 s later SIGKILL.
    others = [rank for rank, status in exits.items() if rank != error.rank and status == -signal.SIGKILL]
    waited = seconds_waited(error.message)
    if waited is not None:
        named = AWAITED.search(error.message)
        whose = f"rank {named[1] if named else _listed(others)}" if named or others else "another rank"
        return f"{whose} did not answer for {waited:g} s"
    killed = [rank for rank, status in exits.items() if rank != error.rank and status < 0 and status != -signal.SIGTERM]
    return f"rank {_listed(killed)} was killed by {signal_name(-exits[killed[-1]])}" if killed else ""


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
