"""Refuses values of an evaluate module that lm-eval, torch or the preparation would refuse after all the training."""

from __future__ import annotations

import re

from titanflow.common.errors import Problem
from titanflow.config.module import Module

BATCH_SIZE = re.compile(r"auto(:[1-9]\d*)?")
DEVICE = re.compile(r"(cpu|cuda|mps|xpu|npu|hpu)(:\d+)?")


def _check_values(module: Module) -> list[Problem]:
    problems, size, limit = [], module.config["batch_size"], module.config["limit"]
    if isinstance(size, str) and not BATCH_SIZE.fullmatch(size):
        hint = f"take the quotes off: {size}" if size.isdecimal() and int(size) else ""
        expected = "a whole number above 0, auto, or auto:N, as auto:4"
        problems.append(module.problem("batch_size", f"found {size!r}", expected, hint))
    if limit is not None and limit >= 1 and limit != int(limit):
        expected = "so many items, as a whole number, or a share of them below 1"
        problems.append(module.problem("limit", f"found {limit}", expected))
    return problems


def _check_device(module: Module) -> list[Problem]:
    config, device = module.config, module.config["device"]
    processes = config["launcher"]["nproc_per_node"]
    if device is not None and not DEVICE.fullmatch(device):
        return [module.problem("device", f"found {device!r}", "cpu, cuda, cuda:1, …")]
    if processes > 1 and config["backend"] == "vllm":
        found = f"found {processes}, and vLLM starts its processes itself"
        return [module.problem("launcher.nproc_per_node", found, "1")]
    if processes > 1 and device is not None and ":" in device:
        found = f"found {device}, for {processes} processes"
        return [module.problem("device", found, f"{device.partition(':')[0]}: each process takes its own")]
    return []


OF_EVALUATE = (_check_values, _check_device)
