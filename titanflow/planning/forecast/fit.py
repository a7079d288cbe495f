"""Tells whether a training fits its device, and which settings would make it fit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem
from titanflow.common.quantities import size
from titanflow.config.checks.training.loss_chunks import check_loss_chunks
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.forecast import Forecast, model_forecast
from titanflow.planning.forecast.layout import Layout
from titanflow.planning.forecast.memory import Memory

if TYPE_CHECKING:
    from titanflow.config.module import Module

MOST_RANKS = 1024
LOSS_CHUNKS = 8
"""As torchtitan's own chunked loss has them; more save little beside what else a step needs."""


def capacity(module: Module, device: DeviceSpec) -> int | None:
    """Bytes that one rank has: a GPU of its own, or its part of the machine's memory; None if unknown."""
    if device.memory is None:
        return None
    return device.memory if device.kind == "cuda" else device.memory // int(module.config["launcher"]["nproc_per_node"])


def does_not_fit(module: Module, forecast: Forecast, device: DeviceSpec) -> Problem | None:
    """A problem if weights, gradients and the optimizer's state alone are more than a rank has."""
    room = capacity(module, device)
    if room is None or forecast.memory is None or forecast.memory.certain <= room:
        return None
    has = f"it has {size(room)} ({device.name})"
    kept = (
        "weights, gradients, optimizer and moving mean" if forecast.memory.mean else "weights, gradients and optimizer"
    )
    found = f"{kept} take {size(forecast.memory.certain)} a rank, and {has}"
    return module.problem("model.flavor", found, f"at most {size(room)}", _what_helps(module, device, room, True))


def may_not_fit(module: Module, forecast: Forecast, device: DeviceSpec) -> str:
    """A warning if the whole forecast is more than a rank has, although what is certain fits; else empty."""
    room = capacity(module, device)
    if room is None or forecast.memory is None or forecast.memory.total <= room:
        return ""
    found = f"a rank is forecast to take {size(forecast.memory.total)}, and it has {size(room)} ({device.name})"
    hint = _what_helps(module, device, room, False)
    return str(module.problem("training.local_batch_size", found, hint=hint))


def _what_helps(module: Module, device: DeviceSpec, room: int, certain: bool) -> str:
    """Settings that would each make it fit, the cheapest first."""
    found = [hint for hint, changed in _candidates(module, device) if _fits(module, changed, device, room, certain)]
    if not found:
        return "none of batch size, activation_checkpoint or ranks alone makes it fit: a smaller model does"
    # The first of each setting that fits is the smallest change.
    kinds = {hint.partition(":")[0]: hint for hint in reversed(found)}
    return "it fits with " + ", or ".join(reversed(kinds.values()))


def _candidates(module: Module, device: DeviceSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    config = module.config
    chunked = _with(config, "training", loss_chunks=LOSS_CHUNKS)
    if config["training"]["loss_chunks"] == 1 and not check_loss_chunks(_changed(module, chunked)):
        yield f"training.loss_chunks: {LOSS_CHUNKS}", chunked
    if config["activation_checkpoint"]["mode"] != "full":
        yield "activation_checkpoint.mode: full", _with(config, "activation_checkpoint", mode="full")
    layout = Layout.of(config)
    for rows in range(layout.rows - 1, 0, -1):
        # The global batch stays: torchtitan adds up the gradients of more microbatches.
        if layout.batch % (rows * layout.replicate * layout.shard) == 0:
            changed = _with(config, "training", local_batch_size=rows, global_batch_size=layout.batch)
            yield f"training.local_batch_size: {rows}", changed
    if config["training"]["ema"] is not None:
        yield "training.ema: null", _with(config, "training", ema=None)
    if module.base is not None and not config["lora"]["rank"]:
        yield "lora.rank: 16", _with(config, "lora", rank=16)
    if device.kind == "cuda":
        others = layout.replicate * layout.tensor * layout.context * layout.pipeline
        shard = 2 * layout.shard
        while shard * others <= MOST_RANKS:
            ranks = _with(config, "launcher", nproc_per_node=shard * others, nnodes=1)
            sharded = _with(ranks, "parallelism", data_parallel_shard_degree=shard)
            yield f"launcher.nproc_per_node: {shard * others} (FSDP shares the weights among them)", sharded
            shard *= 2


def _with(config: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return {**config, section: {**config[section], **values}}


def _changed(module: Module, config: dict[str, Any]) -> Module:
    changed = copy.copy(module)
    changed.config = config
    return changed


def _fits(module: Module, config: dict[str, Any], device: DeviceSpec, room: int, certain: bool) -> bool:
    needed: Memory | None = model_forecast(_changed(module, config), device.kind)[1]
    return needed is not None and (needed.certain if certain else needed.total) <= room
