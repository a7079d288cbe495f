"""Forecasts a plan's stages, and refuses those that don't fit their device."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import ConfigError, Problem, told_once
from titanflow.config.device import stage_device, this_machine
from titanflow.planning.cluster.asked_memory import asked_bytes, memory_problem
from titanflow.planning.cluster.time_limit import time_problem
from titanflow.planning.forecast import device as devices
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.disk import disk_of, disk_warning
from titanflow.planning.forecast.fit import does_not_fit, may_not_fit
from titanflow.planning.forecast.forecast import forecast_stage, stage_module
from titanflow.planning.forecast.history import History
from titanflow.runs.checkpoints import newest_step

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment
    from titanflow.planning.stage_plan import StagePlan

GPU_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "amd.com/gpu.product-name")
"""Labels of Kubernetes' nodes that name their GPUs."""
UNKNOWN_GPU = DeviceSpec("cuda", "a GPU")


def add_forecasts(stages: Iterable[StagePlan], experiment: Experiment, workspace: Path, runs_here: bool) -> None:
    """Forecasts each stage that isn't done, and warns of those that may not fit their device.

    A stage that can't fit is refused. With ``runs_here`` False, or in a pool of its own, it only gives a warning, since
    it may run on another device.
    """
    history, stages = History(workspace), list(stages)
    refused: list[Problem] = []
    elsewhere: list[Problem] = []
    doubtful: list[Problem] = []
    for plan in stages:
        if plan.state == "CACHED":
            continue
        device = device_of(plan.run.config.get("launcher") or {})
        plan.forecast = forecast = forecast_stage(plan.run, _steps_done(plan), experiment, device, history)
        plan.forecast = forecast = dataclasses.replace(forecast, disk=disk_of(plan, experiment.modules))
        module = stage_module(plan.run, experiment)
        if module is None or not module.trains:
            continue
        if plan.is_job:
            for certain, doubt in (time_problem(module, forecast), memory_problem(module, forecast, device)):
                refused += [certain] if certain else []
                doubtful += [doubt] if doubt else []
            if device.kind == "cpu" and asked_bytes(module.config["launcher"]) is not None:
                # Its memory isn't this machine's.
                continue
        if problem := does_not_fit(module, forecast, device):
            (refused if runs_here and not plan.pool and not plan.is_job else elsewhere).append(problem)
        elif warning := may_not_fit(module, forecast, device):
            experiment.warnings.append(warning)
    if refused:
        raise ConfigError(refused)
    if warning := disk_warning(stages, workspace, experiment.origins.get("workspace", "")):
        experiment.warnings.append(warning)
    experiment.warnings += [str(doubt) for doubt in told_once(doubtful)]
    experiment.warnings += [f"on this machine a run would be refused: {problem}" for problem in told_once(elsewhere)]


def device_of(launcher: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> DeviceSpec:
    """The device of each of a stage's ranks: the smallest visible GPU, or the CPU. Other machines count as this one."""
    if asked := _asked_of_a_cluster(launcher):
        return asked
    device = stage_device(launcher, environ) or this_machine(environ)
    if device.kind == "cpu":
        return devices.cpu()
    found = _visible(devices.gpus(), environ.get("CUDA_VISIBLE_DEVICES"))
    return min(found, key=lambda gpu: gpu.memory or 0, default=UNKNOWN_GPU)


def _asked_of_a_cluster(launcher: Mapping[str, Any]) -> DeviceSpec | None:
    """The GPU that a stage's job asks for; its name, where it has one: ``gpu:h100:8`` of Slurm, a label of nodes."""
    kind, device = launcher.get("kind", "local"), launcher.get("device")
    if kind == "local" or device == "cpu":
        return None
    if kind == "kubernetes":
        labels = launcher["kubernetes"]["node_selector"]
        name = next((labels[label] for label in GPU_LABELS if label in labels), "").replace("-", " ")
        return _gpu(name) if device == "cuda" else None
    what, *words = str(launcher["slurm"]["gres"] or "").split(":")
    if what != "gpu" and device != "cuda":
        return None
    return _gpu(words[0] if words and not words[0].isdecimal() else "")


def _gpu(name: str) -> DeviceSpec:
    return DeviceSpec("cuda", _capitals(name)) if name else UNKNOWN_GPU


def _capitals(name: str) -> str:
    # As the drivers write them: NVIDIA H100 PCIe.
    return name.upper().replace("PCIE", "PCIe")


def _visible(gpus: tuple[DeviceSpec, ...], visible: str | None) -> tuple[DeviceSpec, ...]:
    """The GPUs that are named by number; all if they are named otherwise."""
    numbers = [name.strip() for name in (visible or "").split(",")]
    if not all(name.isdecimal() and int(name) < len(gpus) for name in numbers):
        return gpus
    return tuple(gpus[int(name)] for name in numbers)


def _steps_done(plan: StagePlan) -> int:
    """The step from which a training goes on."""
    if plan.extension is not None and plan.state == "EXTEND":
        return plan.extension.begins
    return (newest_step(plan.run.folder) or 0) if plan.state == "RESUME" else 0
