"""Collects all that a stage's result depends on: its config, its data, the stages before it, the code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import titanflow
from titanflow.architectures.custom_code import code_digests, custom_import
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.digests import file_digest
from titanflow.config.batch import GLOBAL, LOCAL, global_batch_size, rows_key
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.task_checks import data_files
from titanflow.files.yaml_source import display, flatten
from titanflow.planning.data_inputs import add_data
from titanflow.planning.evaluation.models import models_state
from titanflow.planning.origin.initial_weights import PATH
from titanflow.planning.preparation import Preparation
from titanflow.publish.settings import read_settings
from titanflow.publish.signing.key import read_sign_key
from titanflow.runs.contract import StageRun
from titanflow.runs.inputs import PARENT, StageInputs

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
    "during",
    "samples",
    "training.gc_freq",
    "training.gc_debug",
    "training.dataloader",
    "checkpoint.folder",
    "checkpoint.interval",
    "checkpoint.keep_latest_k",
    "checkpoint.async_mode",
    "wandb",
    "trackio",
    "mlflow",
    "log_samples",
    "token_block",
    "sign_key",
    "include_path",
    "cache_requests",
}
"""Sections and keys that don't change a result; data, tokenizer, chat, tasks and the key that signs count by their
content."""


def stage_inputs(
    run: StageRun,
    parents: Mapping[str, str],
    experiment: Experiment,
    preparation: Preparation,
    recorded: StageInputs | None = None,
) -> StageInputs:
    """What a stage is made from.

    ``parents`` are the fingerprints of the stages that it reads, ``recorded`` its inputs when it ran before.
    """
    inputs = StageInputs()
    if run.kind == "prepare":
        for folder in sorted(map(str, preparation.folders())):
            inputs.add(f"prepare.{Path(folder).name}", folder)
        return inputs
    module = experiment.modules[run.stage]
    _add_config(inputs, module, run)
    add_data(inputs, module, preparation)
    if module.trains:
        _add_training(inputs, module, run)
    if run.kind == "evaluate":
        _add_tasks(inputs, module, run, recorded.values if recorded else {})
        _add_models(inputs, module, run)
    if run.kind == "publish" and (key := read_sign_key(read_settings(run))):
        inputs.add(f"{module.name}.sign_key: public key", key.fingerprint, module.origins.get("sign_key", ""))
    for one in run.trained_on:
        # What is stated of a source changes the card, and no stage before.
        section = ".".join(filter(None, (one.stage, "data", one.member)))
        stated = {"license": one.license, "link": one.link}
        for name in filter(stated.get, stated):
            inputs.add(f"{section}.{name}", stated[name])
    for stage, fingerprint in parents.items():
        inputs.add(f"{PARENT}{stage}", fingerprint)
    inputs.add("version.titanflow", titanflow.__version__, "installed")
    inputs.add("version.torchtitan", load_snapshot()["torchtitan"], "installed")
    return inputs


def scoring_fingerprint(run: StageRun, module: Module) -> str:
    """What the scores beside a training are made from, but for its checkpoints: settings, tasks and items."""
    inputs = StageInputs()
    _add_config(inputs, module, run)
    _add_tasks(inputs, module, run, {})
    inputs.add(f"{module.name}.data", str(run.data.train))
    return inputs.fingerprint


def _add_config(inputs: StageInputs, module: Module, run: StageRun) -> None:
    config = flatten(result_relevant(run.config))
    if module.trains:
        # The path as it was written: where the weights lie on this machine changes no result.
        config[PATH] = module.config["checkpoint"]["initial_load_path"]
    arguments = {f"model.{key}": value for key, value in flatten(module.model_args).items()}
    for key, value in (config | arguments).items():
        origin = module.origins.get(key, "")
        if module.base is not None and key in arguments and " of torchtitan " in origin:
            origin = f"inherited from {module.base.stage}"
        inputs.add(f"{module.name}.{key}", value, origin)


def _add_training(inputs: StageInputs, module: Module, run: StageRun) -> None:
    is_set = rows_key(run.config) == GLOBAL
    origin = module.origins.get(GLOBAL, "") if is_set else f"{LOCAL} on each data-parallel rank"
    inputs.add(f"{module.name}.{GLOBAL}", global_batch_size(run.config), origin)
    if module.base is not None and module.base.digest:
        inputs.add(f"{module.name}.base: content", module.base.digest, module.origins.get("base", ""))
    if custom_import(run.config):
        # A plan can't know the model's arguments or what it computes, so the config and the code's files count.
        for name, value in flatten(module.model_overrides).items():
            inputs.add(f"{module.name}.model.{name}", value, module.origins.get(f"model.{name}", ""))
        for path, digest in code_digests(run.config):
            inputs.add(f"code.{path}", digest, module.origins.get("experimental.custom_import", ""))


def _add_models(inputs: StageInputs, module: Module, run: StageRun) -> None:
    for model, files in models_state(run.config["models"]).items():
        origin = module.origins.get(f"models.{model}", "")
        for name, size, changed in files:
            inputs.add(f"{module.name}.models.{model}: {name}", f"{size:,} bytes, written {changed} ns", origin)


def result_relevant(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what can't change a result."""
    kept: dict[str, Any] = {}
    for section, values in config.items():
        # An evaluate module's `chat` is a setting, not a section.
        if section in NO_EFFECT and (section != "chat" or isinstance(values, dict)):
            continue
        if section == "lora" and not values["rank"]:
            values = {"rank": 0}
        if isinstance(values, dict):
            values = {key: value for key, value in values.items() if f"{section}.{key}" not in NO_EFFECT}
        kept[section] = values
    return kept


def _add_tasks(inputs: StageInputs, module: Module, run: StageRun, recorded: Mapping[str, Any]) -> None:
    """The files of the asked tasks, all Python files beside them, and items that a task names by their own path.

    Missing items count as ``recorded``: a finished evaluation doesn't need them any more.
    """
    if not run.config["include_path"]:
        return
    folder, asked = Path(run.config["include_path"]), asked_by(run.config)
    for path in sorted({*asked.files, *folder.rglob("*.py")}):
        key = f"{module.name}.include_path: {path.relative_to(folder).as_posix()}"
        inputs.add(key, file_digest(path), module.origins.get("include_path", ""))
    for task in asked.single:
        for name in data_files(task.config) if not task.of_library else ():
            key = f"{module.name}.data_files: {name}"
            found = file_digest(name) if os.path.isfile(name) else recorded.get(key)  # noqa: PTH113
            if found is not None:
                inputs.add(key, found, display(task.yaml.stands.get("dataset_kwargs", task.yaml.path)))
