"""Which machine each rank runs on, and how far the machines' clocks are apart: told in the log once, at the start."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
import torch.distributed as dist
from torchtitan.tools.logging import logger

CLOCK_SECONDS = 1.0
"""Clocks that are this near each other aren't worth a line."""
ROUNDS = 5


def tell_hosts(group: dist.ProcessGroup | None) -> None:
    """Logs the lines of :func:`host_lines`; every rank calls it, with None where there is only one."""
    if group is None:
        return
    lines = host_lines(group)
    # Each machine's first rank is shown, and these lines are the same for all.
    for line in lines if dist.get_rank() == 0 else ():
        logger.info(line)


def host_lines(group: dist.ProcessGroup, clock: Callable[[], float] = time.time) -> list[str]:
    """The log's lines about all ranks of a group on the CPU; every rank calls it."""
    ranks = dist.get_world_size(group)
    hosts: list[str] = [""] * ranks
    dist.all_gather_object(hosts, socket.gethostname(), group=group)
    return described(hosts, _offsets(group, ranks, clock))


def _offsets(group: dist.ProcessGroup, ranks: int, clock: Callable[[], float]) -> list[float]:
    """By how many seconds each rank's clock is ahead of the first's.

    Ranks leave a barrier at nearly the same time; of several the least difference counts, since a busy machine only
    ever adds to it.
    """
    rounds = []
    for _ in range(ROUNDS):
        dist.barrier(group)
        times = [torch.zeros(1, dtype=torch.float64) for _ in range(ranks)]
        dist.all_gather(times, torch.tensor([clock()], dtype=torch.float64), group=group)
        rounds.append(torch.cat(times) - times[0])
    differences = torch.stack(rounds)
    nearest = differences.abs().argmin(dim=0, keepdim=True)
    return [float(one) for one in differences.gather(0, nearest)[0]]


def described(hosts: Sequence[str], offsets: Sequence[float]) -> list[str]:
    """The lines for ranks on these hosts, whose clocks are so many seconds ahead of the first rank's."""
    lines = [f"Ranks: {', '.join(_ranges(hosts))}."]
    told: set[str] = set()
    for host, offset in zip(hosts, offsets, strict=True):
        if abs(offset) > CLOCK_SECONDS and host not in told:
            told.add(host)
            side = "ahead of" if offset > 0 else "behind"
            lines.append(f"The clock of {host} is {abs(offset):.1f} s {side} that of {hosts[0]}, and so are its lines.")
    return lines


def _ranges(hosts: Sequence[str]) -> Iterator[str]:
    for host, group in groupby(range(len(hosts)), key=lambda rank: hosts[rank]):
        ranks = list(group)
        yield f"{ranks[0]}-{ranks[-1]} on {host}" if len(ranks) > 1 else f"{ranks[0]} on {host}"
