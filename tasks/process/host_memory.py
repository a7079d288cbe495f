"""Whether the kernel killed a process because memory ran out: a SIGKILL alone doesn't tell who sent it."""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")
OF_HOST = Path("/proc/vmstat")
COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills() -> int | None:
    """How many processes the kernel killed for lack of memory in this cgroup, else on the host; None if it doesn't
    say."""
    # A killed descendant counts, whoever's limit was reached.
    for path in (*_of_cgroup(), OF_HOST):
        try:
            found = COUNT.search(path.read_text(encoding="utf-8"))
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _of_cgroup() -> list[Path]:
    """The files that count this cgroup's kills: of versions 2 and 1, also as a container sees its own."""
    try:
        lines = [line.split(":", 2) for line in OF_PROCESS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    paths = []
    for _, controllers, place in lines:
        if not controllers:
            paths += [CGROUPS / place.lstrip("/") / "memory.events", CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            memory = CGROUPS / "memory"
            paths += [memory / place.lstrip("/") / "memory.oom_control", memory / "memory.oom_control"]
    return paths
