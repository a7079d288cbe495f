"""The rows of a step: how many there are, and how the data-parallel ranks share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.module import Module

GLOBAL, LOCAL = "training.global_batch_size", "training.local_batch_size"
"""The keys for the rows of a step, and for those that a rank takes at a time."""


def check_batch(module: Module) -> list[Problem]:
    """Assumes that the module's degrees of parallelism fit its processes."""
    problems = []
    training = module.config["training"]
    rows, local = training["global_batch_size"], training["local_batch_size"]
    if rows == 0:
        hint = "-1 takes local_batch_size rows on each data-parallel rank"
        problems.append(module.problem(GLOBAL, "found 0", "1 or more, or -1", hint))
    elif local_share(rows, local, ranks := data_parallel_ranks(module.config)) is None:
        problems.append(module.problem(GLOBAL, *unshared(rows, local, ranks)))
    if module.config["validation"]["steps"] == 0:
        hint = "to validate nothing, set validation.enable: false"
        problems.append(module.problem("validation.steps", "found 0", "1 or more, or -1 for all rows", hint))
    return problems


def data_parallel_ranks(config: Mapping[str, Any]) -> int:
    """The number of ranks that read different rows; the others share a model's weights, layers or rows."""
    launcher = config.get("launcher") or {}
    processes = int(launcher.get("nproc_per_node") or 1) * int(launcher.get("nnodes") or 1)
    return data_parallel_share(processes, config.get("parallelism") or {})


def data_parallel_share(processes: int, parallelism: Mapping[str, Any]) -> int:
    """The number of these processes that read different rows."""
    for kind in ("tensor", "pipeline", "context"):
        processes //= int(parallelism.get(f"{kind}_parallel_degree") or 1)
    return max(processes, 1)


def rows_key(config: Mapping[str, Any]) -> str:
    """The key that sets the rows of a step: an unset global batch size follows from the local one."""
    return GLOBAL if ((config.get("training") or {}).get("global_batch_size") or -1) > 0 else LOCAL


def global_batch_size(config: Mapping[str, Any]) -> int | None:
    """Rows in one optimizer step, by torchtitan's rule: the global size, or the local one on each data-parallel rank.

    None where a config has neither.
    """
    training = config.get("training") or {}
    if rows_key(config) == GLOBAL:
        return int(training["global_batch_size"])
    if not training.get("local_batch_size"):
        return None
    return int(training["local_batch_size"]) * data_parallel_ranks(config)


def local_share(rows: int, local: int, ranks: int) -> int | None:
    """The rows that a rank takes at a time: ``local``, or fewer where the ranks' batches exceed the global one.

    The result of a training depends on the global batch; the local one only says how it is cut. None where ``ranks``
    can't share ``rows`` evenly: torchtitan asserts that ``rows`` is a multiple of ``local × ranks``.
    """
    if rows <= 0 or rows % (local * ranks) == 0:
        return local
    if rows % ranks or local * ranks < rows:
        return None
    return rows // ranks


def unshared(rows: int, local: int, ranks: int) -> tuple[str, str]:
    """The message, and what is expected instead, where :func:`local_share` is None."""
    of = f"{ranks} data-parallel rank{'s' if ranks > 1 else ''} of {local} rows"
    expected = f"a multiple of {ranks * local}" + (f", or of {ranks} and smaller" if local > 1 else "")
    return f"found {rows}, with {of}", expected
