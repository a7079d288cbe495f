"""Finds models that can't be asked through a chat template, since they have none, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from titanflow.architectures.base import TOKENIZER_FILE
from titanflow.architectures.huggingface import is_hugging_face
from titanflow.common.errors import Problem
from titanflow.common.files import expanded
from titanflow.config.files.chat_template import template_of
from titanflow.config.means.recipe import means_of
from titanflow.config.module import Module
from titanflow.evals.asked_as_chat import asked_as_chat
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.runs.contract import StageRun

HINT = "models: [sft] asks the fine-tuned model alone; chat: false asks every model without a template"


def lacking_template(tasks: list[str], model: str) -> str:
    """The message for a model without a template."""
    return f"{', '.join(tasks)} {'asks' if len(tasks) == 1 else 'ask'} through a chat template, and {model} has none"


def template_problems(
    module: Module, run: StageRun, asked: AskedTasks, runs: Mapping[str, StageRun]
) -> Iterator[Problem]:
    """A problem for each model that needs a template and has none, if it or its tokenizer is there already."""
    metadata = {name: {task.name: task.config.get("metadata") for task in tasks} for name, tasks in asked.tasks.items()}
    tasks = [name for name in metadata if any(asked_as_chat(name, metadata[name], run.config["chat"]).values())]
    for name in run.config["models"] if tasks else ():
        folder = _folder(run, name, runs)
        if folder is not None and (folder / TOKENIZER_FILE).is_file() and template_of(folder) is None:
            yield module.problem("models", lacking_template(tasks, f"{name} ({folder})"), hint=HINT)


def _folder(run: StageRun, name: str, runs: Mapping[str, StageRun]) -> Path | None:
    """The folder of a model's template; None if it isn't known yet, or if an sft writes it."""
    models = run.config["models"]
    if isinstance(models, dict):
        folder: Path | None = expanded(models[name])
    else:
        mean = means_of(run.config).get(name)
        folder = run.stages.get(mean.stages[0] if mean is not None else name)
        planned = next((one for one in runs.values() if one.folder == folder), None)
        if planned is not None:
            return _given(runs) if planned.kind == "pretrain" else None
    return folder if folder is not None and is_hugging_face(folder) else None


def _given(runs: Mapping[str, StageRun]) -> Path | None:
    """The tokenizer that a pretraining is given; None for one that is trained here, which has a template."""
    prepared = runs.get("prepare")
    path = ((prepared.config.get("tokenizer") if prepared else None) or {}).get("path")
    return Path(path) if path else None
