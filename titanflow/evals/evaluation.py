"""What an evaluate module asks for, before anything is trained: its tasks, their files and items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from titanflow.config.division import sources
from titanflow.config.module import Module
from titanflow.data.eval_items import DESCRIPTION, ITEMS_FILE, item_names
from titanflow.data.fingerprints import data_files
from titanflow.errors import ConfigError, DataError, Problem
from titanflow.evals.asked_tasks import SingleTask, asked_by
from titanflow.evals.task_checks import DATA, DATA_FILES, item_files, missing_items, task_problems
from titanflow.evals.templates import column_problems
from titanflow.stage import StageRun

if TYPE_CHECKING:
    from titanflow.plan import StagePlan


def check_tasks(plans: Iterable[StagePlan], modules: Mapping[str, Module]) -> None:
    """Refuses an evaluation that is to run and that lm-eval would refuse once everything is trained.

    Raises:
        ConfigError: a task that nothing knows, a file of a task that can't be used, or items that aren't there.
    """
    to_run = [plan.run for plan in plans if plan.stage == "evaluate" and plan.state != "CACHED"]
    problems = [problem for run in to_run for problem in evaluation_problems(modules["evaluate"], run)]
    problems += [problem for run in to_run for problem in _trained_on(modules, run)]
    if problems:
        raise ConfigError(problems)


def evaluation_problems(module: Module, run: StageRun) -> list[Problem]:
    """Everything that is wrong with the tasks of an evaluate module, each once."""
    asked = asked_by(run.config, module.name, module.origins)
    items = _items(module, run)
    problems = [*asked.problems]
    for task in {task.name: task for task in asked.single}.values():
        problems += [*task_problems(task), *missing_items(task, items)]
        problems += column_problems(task, item_files(task, run.data.train))
    if run.config["apply_chat_template"] == "auto":
        problems += [problem for name, tasks in asked.tasks.items() for problem in _check_chat(module, name, tasks)]
    return list(dict.fromkeys(problems))


def _trained_on(modules: Mapping[str, Module], run: StageRun) -> Iterator[Problem]:
    """Items by their own path in a file that is trained on; those of the evaluate module's data are compared before."""
    asked = asked_by(run.config)
    files = {path.resolve(): task for task in asked.single for path in item_files(task, None)}
    for module in modules.values() if files else ():
        if not module.trains or module.config["training"]["mock_data"]:
            continue
        for key, data in sources(module.config["data"], "data").items():
            try:
                shared = files.keys() & {file.resolve() for file in data_files(data)}
            except DataError:
                continue  # What isn't there is refused where it is planned.
            for path in sorted(shared):
                message = f"{path} is trained on, in {module.name}.{key}"
                hint = "hold rows out, held_out: {test: 200}, and name the data file in the evaluate module's `data:`"
                expected = f"rows that nothing trains on: {DATA}/{ITEMS_FILE}"
                yield files[path].yaml.problem(DATA_FILES.partition(".")[0], message, expected, hint)


def _items(module: Module, run: StageRun) -> list[str] | None:
    """The files of the prepared items, by their path in the folder; None where none are prepared."""
    folder = run.data.train
    if folder is None:
        return None
    if module.config["data"]["kind"] != "evals" or not folder.is_dir():
        return item_names(module.config["data"])
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if name != DESCRIPTION]


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
