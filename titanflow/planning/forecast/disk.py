"""The disk that a plan's stages take: checkpoints, exports, means, and what is published.

A checkpoint holds the trained weights and AdamW's two moments in the weights' type, and the moving mean in fp32. Those
of adapters leave the frozen weights out. Prepared rows count as much as the files that they are read from: a token
takes 2 or 4 bytes and stands for about as many. Rows of the Hub aren't counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import DataError, Problem
from titanflow.common.quantities import size
from titanflow.config.means.recipe import means_of
from titanflow.config.stages import model_module
from titanflow.data.fingerprints import data_files
from titanflow.planning.extension.schedule import Schedule
from titanflow.planning.forecast.forecast import model_forecast
from titanflow.planning.forecast.layout import Layout
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
        total = exported + checkpoints(module.config, plan.best) * _checkpoint(module, forecast.trained_parameters)
        return max(0, total - _written(plan.run.folder)) if plan.state in ("RESUME", "EXTEND") else total
    if module.kind == "evaluate":
        made = [name for name in means_of(module.config) if not plan.run.stages[name].exists()]
        sizes = [_parameters(name, modules) for name in made]
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
    steps, interval, kept = config["training"]["steps"], config["checkpoint"]["interval"], Schedule.of(config).kept_step
    saved = -(-steps // interval) + (kept is not None and kept % interval != 0)
    if not config["checkpoint"]["keep_latest_k"]:
        return saved
    beside = sum((kept is not None, config["during"]["every"] is not None, bool(best)))
    return min(config["checkpoint"]["keep_latest_k"] + 1 + beside, saved)


def disk_warning(plans: Iterable[StagePlan], workspace: Path) -> str:
    """Says that the stages which are to come take more than the workspace's disk has free; else empty."""
    needs = {plan.stage: disk for plan in plans if plan.forecast is not None and (disk := plan.forecast.disk)}
    free = shutil.disk_usage(next(path for path in (workspace, *workspace.parents) if path.exists())).free
    if sum(needs.values()) <= free:
        return ""
    told = ", ".join(f"{stage} {size(need)}" for stage, need in needs.items())
    found = f"the stages are forecast to write {size(sum(needs.values()))} ({told}), and {size(free)} are free"
    hint = "make room, keep fewer checkpoints (checkpoint.keep_latest_k), or name another disk"
    return str(Problem(found, "workspace", str(workspace), hint=hint))


def _checkpoint(module: Module, trained: int) -> int:
    mean = MEAN_BYTES if module.config["training"]["ema"] is not None else 0
    return trained * (Layout.of(module.config).weight_bytes * (1 + MOMENTS) + mean)


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
