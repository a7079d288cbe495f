"""Checks an evaluate module's tasks, their files and items before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.common.errors import ConfigError, DataError, Problem, did_you_mean
from titanflow.common.files import expanded
from titanflow.config.division import sources
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.config.module import Module
from titanflow.config.stages import model_module, modules_of
from titanflow.data.fingerprints import data_files as files_read
from titanflow.data.held_out.eval_items import ITEMS_FILE, item_names, named_files
from titanflow.data.stdlib import evals
from titanflow.evals.asked_as_chat import HINT, asked_as_chat, mixed
from titanflow.evals.asked_tasks import INSIDE, SHOWN, AskedTasks, asked_by
from titanflow.evals.fewshot import asked_as_examples, examples, named_splits, own_answers, rows_in, shots
from titanflow.evals.suites import suite_problems, suite_warnings
from titanflow.evals.task_checks import DATA, DATA_FILES, data_files, item_files, missing_items, task_problems
from titanflow.evals.task_yaml import SingleTask
from titanflow.evals.value_checks import generation_problems
from titanflow.planning.evaluation.columns import column_problems
from titanflow.planning.evaluation.lacking_template import template_problems
from titanflow.publish.task_files import task_secrets
from titanflow.runs.contract import DATASET_FILE, StageRun

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan


def check_tasks(plans: Iterable[StagePlan], modules: Mapping[str, Module]) -> list[str]:
    """Refuses evaluations that lm-eval would refuse after the training; returns warnings.

    Raises:
        ConfigError: a task that nothing knows, a file of a task that can't be used, or items that aren't there.
    """
    runs = {plan.stage: plan.run for plan in plans if plan.kind != "evaluate" or plan.state != "CACHED"}
    problems: list[Problem] = []
    warnings: list[str] = []
    for module in modules_of("evaluate", modules):
        if (run := runs.get(module.name)) is None:
            continue
        asked = asked_by(run.config, module.name, module.origins)
        found = [*_evaluation_problems(module, run, asked), *_trained_on(modules, asked)]
        if not found and (publish := _publishes_tasks(module, modules)):
            found += task_secrets(asked, publish)
        problems += [*found, *template_problems(module, run, asked, runs)]
        warnings += [] if problems else _warnings(module, modules, run, asked)
    if problems:
        raise ConfigError(problems)
    return warnings


def _publishes_tasks(evaluate: Module, modules: Mapping[str, Module]) -> str:
    """The name of the first publication that has the files of an evaluation's own tasks; empty without one."""
    found = (one for one in modules_of("publish", modules) if one.config["evaluation"] == evaluate.name)
    return next((one.name for one in found if one.config["own_tasks"]), "")


def check_during(scored: Iterable[tuple[Module, StageRun]], modules: Mapping[str, Module]) -> None:
    """Refuses scores beside a training that lm-eval would refuse once its first checkpoint is saved.

    Raises:
        ConfigError: as :func:`check_tasks`.
    """
    problems = []
    for module, run in scored:
        asked = asked_by(run.config, module.name, module.origins)
        problems += [*_evaluation_problems(module, run, asked), *_trained_on(modules, asked)]
    if problems:
        raise ConfigError(problems)


def _evaluation_problems(module: Module, run: StageRun, asked: AskedTasks) -> list[Problem]:
    items, unprepared = _items(module, run), _unprepared(module, run)
    problems = [*asked.problems, *suite_problems(run.config, module.name, module.origins)]
    problems += [
        module.problem(f"gen_kwargs.{name}", found, expected, hint)
        for name, found, expected, hint in generation_problems(module.config["gen_kwargs"])
    ]
    for task in {task.name: task for task in asked.single}.values():
        found = [*task_problems(task), *missing_items(task, items)]
        found += column_problems(task, item_files(task, run.data.train, unprepared))
        problems += found or _fewshot_problems(module, run, task)
    problems += _chat_problems(module, asked)
    return list(dict.fromkeys(problems))


def _trained_on(modules: Mapping[str, Module], asked: AskedTasks) -> Iterator[Problem]:
    """Items by their own path in a file that is trained on; those of the module's data are compared elsewhere."""
    files = {path.resolve(): task for task in asked.single for path in item_files(task, None)}
    for module in modules.values() if files else ():
        if not module.trains or module.config["training"]["mock_data"]:
            continue
        for key, data in sources(module.config["data"], "data").items():
            try:
                shared = files.keys() & {file.resolve() for file in files_read(data)}
            except DataError:
                continue  # Missing files are refused where the source is planned.
            for path in sorted(shared):
                message = f"{path} is trained on, in {module.name}.{key}"
                hint = "hold rows out, held_out: {test: 200}, and name the data file in the evaluate module's `data:`"
                expected = f"rows that nothing trains on: {DATA}/{ITEMS_FILE}"
                yield files[path].yaml.problem(DATA_FILES.partition(".")[0], message, expected, hint)


def _items(module: Module, run: StageRun) -> list[str] | None:
    """The files of the prepared items, by their path in the folder; None if none are prepared."""
    folder = run.data.train
    if folder is None:
        return None
    if module.config["data"]["kind"] != "evals" or not folder.is_dir():
        return item_names(module.config["data"])
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if name != DATASET_FILE]


def _unprepared(module: Module, run: StageRun) -> dict[str, Path]:
    """The user's own files of items that are still to be prepared, by their path in the folder."""
    path, folder = module.config["data"].get("path"), run.data.train
    if not path or module.config["data"]["kind"] != "evals" or (folder and folder.is_dir()):
        return {}
    return named_files(path)


def _fewshot_problems(module: Module, run: StageRun, task: SingleTask) -> list[Problem]:
    """Refuses more examples in a prompt than a user's own task has, and examples that would be asked as well."""
    asked = shots(task.config, module.config["num_fewshot"])
    if task.of_library or not asked:
        return []
    if INSIDE in task.name and named_splits(task, module.config["num_fewshot"]):
        message = f"{task.name} names no split for its {asked} examples"
        hint = "without one, lm-eval takes its examples from the tested items, the asked one among them"
        return [task.yaml.problem("task", message, "fewshot_split: a split of its data", hint)]
    if shared := asked_as_examples(task.config):
        message = f"{', '.join(shared)} holds both the examples and the tested items"
        hint = "if both are one split, lm-eval leaves the asked item out of its examples"
        return [task.yaml.problem(DATA_FILES, message, "a file of examples that aren't tested", hint)]
    there = examples(task.config, {name: _rows(module, run, name) for name in data_files(task.config)})
    if there is None or asked <= there:
        return []
    message, expected = f"{task.name} has {there} examples, and {asked} are asked for", f"at most {there}"
    if asked == task.config.get("num_fewshot"):
        return [task.yaml.problem("num_fewshot", message, expected)]
    return [module.problem("num_fewshot", message, expected)]


def _rows(module: Module, run: StageRun, name: str) -> int | None:
    """The number of rows of a data file, named as in a task's YAML; None if it isn't known yet."""
    if not name.startswith(DATA):
        return rows_in(Path(name))
    item, folder, data = name.removeprefix(DATA).lstrip("/"), run.data.train, module.config["data"]
    if folder is not None and folder.is_dir():
        return rows_in(folder / item)
    if data["kind"] != "evals":
        return None
    if not data.get("path"):
        return evals.item_files().get(item)
    file = named_files(data["path"]).get(item)
    return rows_in(file) if file else None


def _chat_problems(module: Module, asked: AskedTasks) -> list[Problem]:
    """Names in ``chat`` that aren't asked, and groups that mix tasks with and without a chat template."""
    setting, problems = module.config["chat"], []
    known = [*asked.tasks, *(task.name for task in asked.single)]
    for name in setting if isinstance(setting, list) and not asked.problems else ():
        if name not in known:
            hint = did_you_mean(name, known)
            expected = f"one of {', '.join(asked.tasks)}"
            problems.append(module.problem("chat", f"{name!r} isn't evaluated", expected, hint))
    for name, tasks in asked.tasks.items():
        metadata = {task.name: task.config.get("metadata") for task in tasks}
        if message := mixed(name, asked_as_chat(name, metadata, setting)):
            problems.append(module.problem("chat", f"found {setting}, and {message}", hint=HINT))
    return problems


def _warnings(module: Module, modules: Mapping[str, Module], run: StageRun, asked: AskedTasks) -> list[str]:
    """Warns of what changes scores of lm-eval's tasks, and of their faults: to be comparable, they stay unchanged."""
    models, number = run.config["models"], run.config["num_fewshot"]
    found = suite_warnings(run.config, module.name)
    own = models if isinstance(models, dict) else {}
    with_template = {name for name, folder in own.items() if (expanded(folder) / TEMPLATE_FILE).is_file()}
    chats = [name for name in models if _asks(name, modules) or name in with_template]
    plain = [name for name, tasks in asked.tasks.items() if any(task.of_library for task in tasks)]
    if run.config["chat"] == "auto" and chats and plain:
        what = f"auto asks {' and '.join(chats)} without the chat template in tasks of lm-eval's library"
        found.append(f"{module.name}.chat: {what}: {_listed(plain)}")
    if leaking := [task.name for task in asked.single if task.of_library and own_answers(task, number)]:
        what = "as lm-eval defines it, a few-shot prompt may hold the asked question and its answer"
        found.append(f"{module.name}.num_fewshot: {what} in {_listed(leaking)}")
    return found


def _asks(name: str, modules: Mapping[str, Module]) -> bool:
    """Whether a model of the experiment was trained on conversations."""
    module = model_module(name, modules)
    return module is not None and module.kind != "pretrain"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)})" if len(names) > SHOWN else "")
