"""From raw text to a published language model. ``plan``, ``run``, ``results`` and ``load`` are for Python callers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from titanflow.api.loaded import load
    from titanflow.api.outcome import Results, results
    from titanflow.api.planned import Plan, plan
    from titanflow.api.started import Run, run
    from titanflow.common.errors import ConfigError, DataError, StageFailed

__version__ = "0.1.0"
__all__ = ["ConfigError", "DataError", "Plan", "Results", "Run", "StageFailed", "load", "plan", "results", "run"]

# Each program of this project imports this package first, before anything that another system lacks.
if sys.platform != "linux":
    sys.exit(
        f"titanflow runs on Linux only, and this system is {sys.platform}: use a Linux machine or container, or WSL2 "
        "on Windows. A published model needs none of this: transformers loads it anywhere."
    )

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ask_loopback_directly() -> None:
    """Adds this machine's own names to ``NO_PROXY``, for this process and those it starts: no proxy reaches them.

    Of the two spellings of a variable some libraries read only one, and others forget both if the lower one is empty.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys(host for part in given.split(",") if (host := _readable(part.strip())))
    # A star alone means every host, and nothing beside other names.
    value = "*" if "*" in hosts else ",".join(hosts | dict.fromkeys(LOOPBACK))
    os.environ.update(no_proxy=value, NO_PROXY=value)


def _readable(host: str) -> str:
    """An entry of ``NO_PROXY`` as httpx reads it, which else dies of it: an address of IPv6 has no brackets.

    No library used here follows a network of IPv6: such an entry is left out (empty).
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address, _, bits = bare.partition("/")
    if "://" in host or address.count(":") < 2 or not bits:
        return bare
    return address if bits == "128" else ""


# Both before Prefect is imported, which reads them then. In a terminal it sends data about its use, and the first time
# says so: who wants that sets DO_NOT_TRACK=0.
ask_loopback_directly()
os.environ.setdefault("DO_NOT_TRACK", "1")


_FACE = {
    "api.loaded": ("load",),
    "api.outcome": ("Results", "results"),
    "api.planned": ("Plan", "plan"),
    "api.started": ("Run", "run"),
    "common.errors": ("ConfigError", "DataError", "StageFailed"),
}
"""The modules below this package in which the names of ``__all__`` are."""


def __getattr__(name: str) -> Any:
    # Each program of this project imports this package first: what a caller in Python asks for is imported only then.
    for module, names in _FACE.items():
        if name in names:
            import importlib

            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
