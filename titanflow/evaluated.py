"""Which models an evaluate module scores: checked in the plan, and part of the stage's fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.errors import ConfigError, Problem
from titanflow.hf_base import CONFIG_FILE
from titanflow.remote_code import trust_remote_code

BASE = "base"
"""What ``models`` calls the model that an sft starts from; without an sft the pretrained one."""


def check_models(module: Module, experiment: Experiment, workspace: Path) -> None:
    """Refuses a model that is no stage of the experiment, and a folder that transformers can't load.

    A folder below the workspace may still be made: by this run or by one that comes before it. One that brings code
    of its own is refused, too.

    Raises:
        ConfigError: names each of them.
    """
    models = module.config["models"]
    if isinstance(models, dict):
        wrong = [
            f"{name}: no {CONFIG_FILE} in {folder}"
            for name, folder in models.items()
            if not (Path(folder) / CONFIG_FILE).is_file() and not _may_come(Path(folder), workspace)
        ]
        expected = "folders that transformers loads"
        origin = module.origins.get("models", "")
        for name, folder in models.items():
            trust_remote_code(Path(folder), f"{module.name}.models.{name}", origin)
    else:
        stages = [other.stage for other in experiment.modules.values() if other.trains]
        known = [*([BASE] if stages else []), *stages]
        wrong = [f"{name!r} is no stage of this experiment" for name in models if name not in known]
        expected = ", ".join(known) or "a mapping from a name to a folder that transformers loads"
    if wrong or not models:
        origin = module.origins.get("models", "")
        raise ConfigError(
            [
                Problem(message, key=f"{module.name}.models", origin=origin, expected=expected)
                for message in wrong or ["nothing to evaluate"]
            ]
        )


def _may_come(folder: Path, workspace: Path) -> bool:
    return not folder.exists() and folder.resolve().is_relative_to(workspace)


def models_state(models: Any) -> dict[str, list[Any]]:
    """The files of each folder that ``models`` names, with size and time: what else may change between two runs."""
    if not isinstance(models, dict):
        return {}
    return {name: [_state(path) for path in sorted(Path(folder).glob("*"))] for name, folder in models.items()}


def _state(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return path.name, state.st_size, state.st_mtime_ns
