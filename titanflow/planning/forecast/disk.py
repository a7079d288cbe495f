"""The disk that a plan's stages take: checkpoints, exports, means, and what is published.

A checkpoint holds the trained weights and AdamW's two moments (of Muon's matrices one) in the weights' type, and the
moving mean in fp32. Those of adapters leave the frozen weights out, and the last may hold the model alone. Prepared
rows count as much as the files that they are read from: a token takes 2 or 4 bytes and stands for about as many. Rows
of the Hub aren't counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import DataError, Problem
from titanflow.common.quantities import size
from titanflow.config.means.recipe import base_mean, means_of
from titanflow.config.stages import model_module, modules_of
from titanflow.data.fingerprints import data_files
from titanflow.planning.extension.schedule import Schedule
from titanflow.planning.forecast.forecast import Forecast, model_forecast
from titanflow.planning.forecast.layout import BYTES, Layout
from titanflow.planning.forecast.memory import MEAN_BYTES, MOMENTS

if TYPE_CHECKING:
    from titanflow.config.module import Module
    from titanflow.planning.stage_plan import StagePlan

EXPORT_BYTES = 4
"""Bytes of a parameter in an export, and in the model of a mean: both are fp32."""
GGUF_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
"""Bytes of a parameter in each format; q8_0 has a scale of two bytes for 32 weights."""


def disk_of(plan: StagePlan, modules: Mapping[str, Module]) -> int | None:
    """Bytes that a stage has yet to write, at most at once; None if nobody knows the size of its model."""
    if plan.kind == "prepare":
        return sum(map(_rows, plan.run.config["datasets"]))
    module = modules.get(plan.stage)
    if module is None:
        return None
    if module.trains:
        forecast = plan.forecast
        if forecast is None or forecast.trained_parameters is None or forecast.parameters is None:
            return None
        exported = EXPORT_BYTES * forecast.parameters if forecast.export is not None else 0
        # The mean that it starts from is a folder beside its own.
        begun = EXPORT_BYTES * forecast.parameters if base_mean(module.config) is not None else 0
        total = exported + begun + _checkpoints(module, forecast, plan.best)
        return max(0, total - _written(plan.run.folder)) if plan.state in ("RESUME", "EXTEND") else total
    if module.kind == "evaluate":
        sizes = [_parameters(name, modules) for name in _made(plan, module, modules)]
        return None if None in sizes else 2 * EXPORT_BYTES * sum(one or 0 for one in sizes)
    parameters = _parameters(module.config["model"], modules)
    if parameters is None or module.config["folder"] is not None:
        return None
    return int(parameters * (EXPORT_BYTES + sum(GGUF_BYTES[one] for one in module.config["gguf"])))


def checkpoints(config: Mapping[str, Any], best: str = "") -> int:
    """How many checkpoints of a training lie on the disk at most; ``best`` says that its best one is held, too.

    A new one is complete before the oldest goes. Beside the newest stand the one before a decay, which more steps need,
    one that is scored while the training goes on, and the best.
    """
    saved, newest, kept = _saved(config), config["checkpoint"]["keep_latest_k"], Schedule.of(config).kept_step
    if not newest:
        return saved
    beside = sum((kept is not None, config["during"]["every"] is not None, bool(best)))
    return min(newest + 1 + beside, saved)


def _saved(config: Mapping[str, Any]) -> int:
    """How many checkpoints a training saves: at each interval, at the end, and at steps that are asked for besides."""
    steps, saving = config["training"]["steps"], config["checkpoint"]
    asked = {Schedule.of(config).kept_step, 1 if saving["enable_first_step_checkpoint"] else None} - {None, steps}
    beside = sum(step is not None and step % saving["interval"] != 0 for step in asked)
    return int(-(-steps // saving["interval"])) + beside


def disk_warning(plans: Iterable[StagePlan], workspace: Path, origin: str) -> str:
    """Says that the stages which are to come take more than the workspace's disk has free; else empty.

    ``origin`` is where the workspace is written.
    """
    needs = {plan.stage: disk for plan in plans if plan.forecast is not None and (disk := plan.forecast.disk)}
    free = shutil.disk_usage(next(path for path in (workspace, *workspace.parents) if path.exists())).free
    if sum(needs.values()) <= free:
        return ""
    told = ", ".join(f"{stage} {size(need)}" for stage, need in needs.items())
    found = f"the stages are forecast to write {size(sum(needs.values()))} ({told}), and {size(free)} are free"
    hint = "make room, keep fewer checkpoints (checkpoint.keep_latest_k), or name another disk"
    return str(Problem(f"{workspace}: {found}", "workspace", origin, hint=hint))


def _checkpoints(module: Module, forecast: Forecast, best: str) -> int:
    """Bytes of a training's checkpoints, at most at once."""
    config, trained = module.config, forecast.trained_parameters or 0
    weight = Layout.of(config).weight_bytes
    mean = MEAN_BYTES if config["training"]["ema"] is not None else 0
    by_muon = forecast.muon.parameters if forecast.muon is not None else 0
    whole = trained * (weight * (1 + MOMENTS) + mean) - weight * by_muon
    most, saved, saving = checkpoints(config, best), _saved(config), config["checkpoint"]
    if not saving["last_save_model_only"] or most < saved:
        return most * whole
    return (most - 1) * whole + trained * BYTES[saving["export_dtype"]]


def _made(plan: StagePlan, evaluate: Module, modules: Mapping[str, Module]) -> Iterator[str]:
    """The means that an evaluation has yet to make: those of an earlier one are there when it begins."""
    every = modules_of("evaluate", modules)
    earlier = {name for one in every[: every.index(evaluate)] for name in means_of(one.config)}
    for name in means_of(evaluate.config):
        if name not in earlier and not plan.run.stages[name].exists():
            yield name


def _parameters(name: str, modules: Mapping[str, Module]) -> int | None:
    """The parameters of a model of the experiment."""
    module = model_module(name, modules)
    counts = model_forecast(module, "cpu")[0] if module is not None and module.trains else None
    return counts.parameters if counts is not None else None


def _rows(dataset: Mapping[str, Any]) -> int:
    """Bytes of prepared rows that are still to be made from local files."""
    if Path(dataset["folder"]).is_dir():
        return 0
    try:
        return sum(file.stat().st_size for file in data_files(dataset["data"]))
    except DataError:
        return 0  # Missing files are refused where the source is planned.


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
