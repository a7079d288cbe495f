"""What a stage's result depends on, as one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import titanflow
from titanflow.config.experiment import Experiment
from titanflow.config.snapshot import load_snapshot
from titanflow.custom_code import code_digests, custom_import
from titanflow.evaluated import models_state
from titanflow.fingerprint import digest, file_digest
from titanflow.preparation import Preparation
from titanflow.stage import StageRun

NO_EFFECT = {
    "launcher",
    "parallelism",
    "metrics",
    "profiling",
    "comm",
    "memory_estimation",
    "job",
    "data",
    "validation_data",
    "tokenizer",
    "chat",
    "training.gc_freq",
    "training.gc_debug",
    "training.dataloader",
    "checkpoint.folder",
    "checkpoint.interval",
    "checkpoint.keep_latest_k",
    "checkpoint.async_mode",
    "wandb",
    "log_samples",
    "token_block",
    "cache_requests",
}
"""Sections and keys that don't change a result; data, tokenizer and chat count by their own fingerprints."""


def stage_fingerprint(run: StageRun, earlier: list[StageRun], experiment: Experiment, preparation: Preparation) -> str:
    """The fingerprint of a stage: its config, its data, the stages before it, the code's versions."""
    if run.stage == "prepare":
        return digest(sorted(str(folder) for folder in preparation.folders()))
    module = experiment.stage(run.stage)
    assert module is not None
    parts: dict[str, Any] = {
        "stage": run.stage,
        "config": without_effect_left_out(run.config),
        "model": module.model_args,
        "data": {key: value for key, value in preparation.fingerprints.items() if key.startswith(f"{module.name}.")},
        "earlier": [before.fingerprint for before in earlier if before.stage != "prepare"],
        "versions": [titanflow.__version__, load_snapshot()["torchtitan"]],
    }
    if module.trains:
        parts["global_batch_size"] = global_batch_size(run.config)
        if module.base is not None and module.base.digest:
            parts["base"] = module.base.digest
        if custom_import(run.config):
            parts |= {"overrides": module.model_overrides, "code": code_digests(run.config)}
    if run.stage == "pretrain" and experiment.night is not None and experiment.night.parent is not None:
        parts["night"] = experiment.night.parent.digest
    if run.stage == "evaluate":
        parts["tasks"] = _task_files(run.config["include_path"])
        if models := models_state(run.config["models"]):
            parts["models"] = models
    return digest(parts)


def without_effect_left_out(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what can't change a result."""
    kept: dict[str, Any] = {}
    for section, values in config.items():
        if section in NO_EFFECT or (section == "lora" and not values["rank"]):
            continue
        if isinstance(values, dict):
            values = {key: value for key, value in values.items() if f"{section}.{key}" not in NO_EFFECT}
        kept[section] = values
    return kept


def global_batch_size(config: dict[str, Any]) -> int:
    """Where it isn't set, torchtitan's: the local one times the data-parallel ranks."""
    size = int(config["training"]["global_batch_size"])
    if size > 0:
        return size
    launcher, parallelism = config["launcher"], config["parallelism"]
    others = (
        parallelism["tensor_parallel_degree"]
        * parallelism["pipeline_parallel_degree"]
        * parallelism["context_parallel_degree"]
    )
    ranks = launcher["nproc_per_node"] * launcher["nnodes"] // others
    return int(config["training"]["local_batch_size"]) * max(1, ranks)


def _task_files(include_path: str | None) -> dict[str, str]:
    if not include_path:
        return {}
    files = sorted(path for path in Path(include_path).rglob("*") if path.suffix in (".yaml", ".py"))
    return {path.relative_to(include_path).as_posix(): file_digest(path) for path in files}
