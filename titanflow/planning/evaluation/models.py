"""Checks in the plan which models an evaluate module scores, and whether its scores may be published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from titanflow.architectures.huggingface import CONFIG_FILE, is_hugging_face
from titanflow.architectures.remote_code import trust_remote_code
from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded
from titanflow.common.hub_names import COMMIT
from titanflow.config.experiment import Experiment
from titanflow.config.means.recipe import means_of
from titanflow.config.module import Module
from titanflow.config.stages import BASE, base_folder
from titanflow.publish.private import evaluation_secrets
from titanflow.publish.settings import unpublishable
from titanflow.runs.checkpoints import METADATA, complete_folders

AMBIGUOUS = f"'{BASE}' could be several models: the fine-tunings start from different ones"


def check_models(module: Module, experiment: Experiment, workspace: Path) -> None:
    """Refuses models that are no stage of the experiment, and folders that transformers can't load or that bring code.

    A folder below the workspace may not be there yet: this run, or one before it, may make it.
    """
    models = module.config["models"]
    check_remote_code(module)
    native = module.config["backend"] == "native"
    problems: list[Problem] = []
    if isinstance(models, dict):
        is_model = _has_checkpoint if native else is_hugging_face
        lacks = "no complete checkpoint" if native else f"no {CONFIG_FILE}"
        expected = "checkpoint/step-N, or its stage's folder" if native else "folders that transformers loads"
        for name, folder in models.items():
            if folder in module.config["remote_code"]:
                continue
            path = expanded(folder)
            if not is_model(path) and (path.exists() or not path.resolve().is_relative_to(workspace)):
                problems.append(module.problem(f"models.{name}", f"{lacks} in {folder!r}", expected))
            trust_remote_code(path, f"{module.name}.models.{name}", module.origins.get(f"models.{name}", ""))
    else:
        stages = [name for name, other in experiment.modules.items() if other.trains]
        known = [*([BASE] if base_folder(experiment.modules, workspace) else []), *stages, *means_of(module.config)]
        # Without any stage there is none that it could be.
        several = [BASE] if stages and BASE not in known else []
        wrong = [f"{name!r} is no stage of this experiment" for name in models if name not in [*several, *known]]
        wrong += [AMBIGUOUS] if several and BASE in models and not wrong else []
        expected = ", ".join(known) or "a mapping from a name to a folder that transformers loads"
        problems += [module.problem("models", message, expected) for message in wrong]
        twice = [name for name in dict.fromkeys(models) if models.count(name) > 1]
        problems += [module.problem("models", f"found {name!r} twice", "each model once") for name in twice]
    if not models:
        problems.append(module.problem("models", "nothing to evaluate", expected))
    if problems:
        raise ConfigError(problems)


def check_remote_code(module: Module) -> None:
    """Refuses a repository whose code would run without a fixed commit, and one that no model names."""
    models = module.config["models"]
    named = list(models.values()) if isinstance(models, dict) else []
    problems = []
    for repository, commit in module.config["remote_code"].items():
        key, origin = f"{module.name}.remote_code.{repository}", module.origins.get("remote_code", "")
        if not COMMIT.fullmatch(str(commit)):
            hint = "a branch or a tag may move: read the code, and name the commit that you read"
            problems.append(Problem(f"{commit!r} is no commit", key, origin, "40 hexadecimal digits", hint))
        if repository not in named:
            problems.append(Problem(f"no model is {repository}", key, origin, f"models: {{name: {repository}}}"))
        if module.config["backend"] == "native":
            problems.append(Problem("the native backend runs no model's own code", key, origin))
    if problems:
        raise ConfigError(problems)


def check_publishable(module: Module, publish: Module) -> None:
    """Refuses scores that :func:`unpublishable` would refuse once they are computed, and secrets on the card."""
    config, problems = module.config, evaluation_secrets(module)
    part = (config.get("data") or {}).get("part") or ""
    problem = unpublishable(module.name, config.get("limit"), config.get("backend", "hf"), part, module.origins)
    if problem is not None and not publish.config.get("dry_run"):
        problems.append(problem)
    if problems:
        raise ConfigError(problems)


def _has_checkpoint(folder: Path) -> bool:
    return (folder / METADATA).is_file() or any(complete_folders(folder / "checkpoint"))


def models_state(models: Any) -> dict[str, list[Any]]:
    """The files of each folder that ``models`` names, with size and time, since they may change between two runs."""
    if not isinstance(models, dict):
        return {}
    return {name: [_state(path) for path in sorted(expanded(folder).glob("*"))] for name, folder in models.items()}


def _state(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return path.name, state.st_size, state.st_mtime_ns
