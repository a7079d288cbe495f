"""The registry of this project's patches of torchtitan: each has a file, with its reason."""

from __future__ import annotations

from collections.abc import Iterable

from titan.patches import (
    cpu_device,
    deepseek_args,
    deepseek_yarn,
    experts_on_cpu,
    late_compile,
    late_datasets,
    llama4_adapter,
    lone_checkpoint,
    peak_flops,
    tied_fsdp,
    train_spec,
)
from titan.patches.patch import Patch, PatchContext
from titanflow.common.errors import ConfigError, Problem

__all__ = ["Patch", "PatchContext", "all_patches", "apply_patches"]


def all_patches() -> list[Patch]:
    """Every patch, in the order of application."""
    return [
        late_compile.PATCH,
        late_datasets.PATCH,
        cpu_device.PATCH,
        experts_on_cpu.PATCH,
        deepseek_args.PATCH,
        deepseek_yarn.PATCH,
        llama4_adapter.PATCH,
        peak_flops.PATCH,
        lone_checkpoint.PATCH,
        tied_fsdp.PATCH,
        train_spec.PATCH,
    ]


def apply_patches(names: Iterable[str] | None = None, context: PatchContext | None = None) -> list[Patch]:
    """Applies the named patches (None for all) that this machine needs; returns them.

    Raises:
        ConfigError: an unknown name, or a torchtitan release that a patch wasn't written for.
    """
    known = {patch.name: patch for patch in all_patches()}
    wanted = list(known if names is None else names)
    if unknown := sorted(set(wanted) - set(known)):
        raise ConfigError(Problem(f"no such patch: {', '.join(unknown)}", expected=", ".join(known)))
    applied = []
    for patch in (known[name] for name in wanted):
        patch.check_version()
        if patch.needed():
            patch.apply(context or PatchContext())
            applied.append(patch)
    return applied
