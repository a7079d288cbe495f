"""How many files and connections a rank may have open."""

from __future__ import annotations

import contextlib
import resource


def allow_all_files() -> None:
    """Raises this process's limit of open files to what it may have at most.

    Of each gloo group a rank has a connection to every other rank (measured: ranks + 3 descriptors a group), and a
    training has up to three such groups: the usual soft limit of 1,024 would end one of more than 340 ranks.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
