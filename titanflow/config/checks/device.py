"""Refuses, before a stage starts, settings that its device can't run; each problem says what to set instead.

Found by trying torch 2.13 and torchtitan 0.2.2: each setting fails when the model is built, or at the first step.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

from titanflow.architectures.families.registry import family_of
from titanflow.common.errors import Problem
from titanflow.config.device import Device
from titanflow.config.module import Module

EMULATED = "quantize.linear.float8"
"""The only converter that can emulate a number format that the device lacks."""


def device_problems(module: Module, device: Device) -> list[Problem]:
    """Settings of a training module that its device doesn't support."""
    if not module.trains:
        return []
    found = list(_on_a_cpu(module) if device.kind == "cpu" else _on_gpus(module, device))
    return [
        module.problem(key, f"{message} ({device.found})" if device.found else message, expected, hint)
        for key, message, expected, hint in found
    ]


def _on_a_cpu(module: Module) -> Iterator[tuple[str, str, str, str]]:
    config, args = module.config, module.model_args
    name, attention = config["model"]["name"], args.get("attn_type")
    if family_of(name).flex_only:
        found = f"found {name!r}: the family has only FlexAttention, which has no backward pass on a CPU"
        yield "model.name", found, "a family that also has sdpa attention", ""
    elif attention in ("flex", "varlen"):
        yield "model.attn_type", f"found {attention!r}, which has no backward pass on a CPU", "sdpa", ""
    if config["training"]["enable_cpu_offload"]:
        yield "training.enable_cpu_offload", "found true, and there is no GPU to offload from", "false", ""
    if config["checkpoint"]["async_mode"] == "async_with_pinned_mem":
        found = "found 'async_with_pinned_mem', and there is no GPU to copy from"
        yield "checkpoint.async_mode", found, "async, or disabled", ""
    degree = config["parallelism"]["context_parallel_degree"]
    if degree > 1:
        hint = "shard by data_parallel_shard_degree or tensor_parallel_degree"
        yield "parallelism.context_parallel_degree", f"found {degree}: a CPU's attention can't be sharded", "1", hint
    for converter in config["model"]["converters"]:
        if converter.startswith("quantize.") and not (converter == EMULATED and _emulates(config)):
            hint = f"or {EMULATED}.emulate: true, which is slow and for tests" if converter == EMULATED else ""
            yield "model.converters", f"found {converter!r}: a CPU can't compute in 8-bit formats", "none", hint
    if config["compile"]["enable"] and not shutil.which(os.environ.get("CXX") or "g++"):
        hint = "install g++, or name a compiler in CXX"
        yield "compile.enable", "found true: torch compiles for a CPU by g++, and there is none", "false", hint


def _on_gpus(module: Module, device: Device) -> Iterator[tuple[str, str, str, str]]:
    config = module.config
    processes = config["launcher"]["nproc_per_node"]
    if device.count is not None and processes > device.count:
        message = f"found {processes}, and this machine shows {device.count} GPU{'s' if device.count > 1 else ''}"
        yield "launcher.nproc_per_node", message, f"at most {device.count}: one process a GPU", ""
    quantised = [one for one in config["model"]["converters"] if one.startswith("quantize.")]
    if quantised and importlib.util.find_spec("torchao") is None:
        yield "model.converters", f"found {quantised[0]!r}, and torchao isn't installed", "pip install torchao", ""


def _emulates(config: dict[str, Any]) -> bool:
    return bool(config["quantize"]["linear"]["float8"]["emulate"]) and importlib.util.find_spec("torchao") is not None
