"""A worker for each GPU, and what each may see."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tasks.process.device_lock import VISIBLE, gpu_names
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.device import Device, this_machine

WHOLE_MACHINE: Mapping[str, Mapping[str, str]] = {"": {}}


def gpu_shares(
    machine: Device | None = None, environ: Mapping[str, str] = os.environ
) -> Mapping[str, Mapping[str, str]]:
    """The end of each worker's name → its environment, which its runs inherit: one GPU each."""
    machine = machine or this_machine(environ)
    names = gpu_names(machine, environ)
    if names:
        return {f"-gpu{name}": {VISIBLE: name} for name in names}
    hint = f"name them in {VISIBLE}, or leave the option out: one worker then has the whole machine"
    raise ConfigError(Problem(f"no GPU to count: {machine.found}", key="--one-worker-per-gpu", hint=hint))
