"""What this process's control groups (cgroups v1 and v2) leave it of the machine: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def usable_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The cores that this process may compute on at once: those it is bound to, or fewer where a quota says so.

    A share of a core counts as none, unless there is no other: a thread more would wait at each barrier for its quota.
    """
    cores = [len(os.sched_getaffinity(0))]
    for folder in _groups("cpu", "", proc, cgroups):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        cores += _whole_cores(quota, period)
    for folder in _groups("cpu", "cpu", proc, cgroups):
        cores += _whole_cores(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))
    return min(cores)


def memory_limit(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes of memory that this machine's processes may use: its own, or less where a cgroup says so."""
    lines = _text(proc / "meminfo").splitlines()
    limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")][:1]
    files = [folder / "memory.max" for folder in _groups("memory", "", proc, cgroups)]
    files += [folder / "memory.limit_in_bytes" for folder in _groups("memory", "memory", proc, cgroups)]
    limits += [int(text) for text in map(_text, files) if text.isdecimal()]
    return min(limits, default=None)


def _whole_cores(quota: str, period: str) -> list[int]:
    return [max(1, int(quota) // int(period))] if quota.isdecimal() and period.isdecimal() and int(period) else []


def _groups(controller: str, mounted: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folder of each cgroup that this process is in, and of the groups around it.

    ``mounted`` is the folder of a v1 ``controller`` in ``cgroups``; v2 has one tree for all, and no such folder.
    """
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if (controller not in controllers.split(",")) if mounted else bool(controllers):
            continue
        # In a container the path may be the host's, while the container's own group is the top.
        top = cgroups / mounted
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
