"""What an evaluate module asks for, before anything is trained: its tasks, their files and items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from titanflow.config.module import Module
from titanflow.data.eval_items import item_names
from titanflow.errors import ConfigError, Problem
from titanflow.evals.asked_tasks import SingleTask, asked_by
from titanflow.evals.suites import suite_problems
from titanflow.evals.task_checks import missing_items, task_problems
from titanflow.stage import StageRun

if TYPE_CHECKING:
    from titanflow.plan import StagePlan


def check_tasks(plans: Iterable[StagePlan], modules: Mapping[str, Module]) -> None:
    """Refuses an evaluation that is to run and that lm-eval would refuse once everything is trained.

    Raises:
        ConfigError: a task that nothing knows, a file of a task that can't be used, or items that aren't there.
    """
    to_run = (plan.run for plan in plans if plan.stage == "evaluate" and plan.state != "CACHED")
    problems = [problem for run in to_run for problem in evaluation_problems(modules["evaluate"], run)]
    if problems:
        raise ConfigError(problems)


def evaluation_problems(module: Module, run: StageRun) -> list[Problem]:
    """Everything that is wrong with the tasks of an evaluate module, each once."""
    asked = asked_by(run.config, module.name, module.origins)
    items = _items(module, run)
    problems = [*asked.problems, *suite_problems(run.config, module.name, module.origins)]
    for task in {task.name: task for task in asked.single}.values():
        problems += [*task_problems(task), *missing_items(task, items)]
    if run.config["apply_chat_template"] == "auto":
        problems += [problem for name, tasks in asked.tasks.items() for problem in _check_chat(module, name, tasks)]
    return list(dict.fromkeys(problems))


def _items(module: Module, run: StageRun) -> list[str] | None:
    """The files of the prepared items, by their path in the folder; None where none are prepared."""
    folder = run.data.train
    if folder is None:
        return None
    if folder.is_dir():
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return item_names(module.config["data"])


def _check_chat(module: Module, name: str, tasks: list[SingleTask]) -> list[Problem]:
    """The tasks of one group are asked together, all through the chat template or none."""
    wanted = {task.name: wants_chat(task) for task in tasks}
    if len(set(wanted.values())) < 2:
        return []
    of_each = ", ".join(f"{task} {'with' if chat else 'without'}" for task, chat in list(wanted.items())[:6])
    hint = "list its tasks one by one, or set apply_chat_template to true or false"
    message = f"found auto, and {name} mixes tasks with and without the chat template: {of_each}"
    return [module.problem("apply_chat_template", message, hint=hint)]


def wants_chat(task: SingleTask) -> bool:
    """Whether a task's ``metadata.chat`` asks for the chat template."""
    metadata = task.config.get("metadata")
    return bool(metadata.get("chat")) if isinstance(metadata, Mapping) else False
