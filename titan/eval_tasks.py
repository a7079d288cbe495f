"""Evaluation tasks: your own YAML files with their data filled in, and lm-eval's library where one isn't yours.

A task's YAML may run code (``!function``, Jinja): use only task folders that you trust.
"""

from __future__ import annotations

import difflib
import glob
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from titanflow.errors import ConfigError, Problem

DATA = "${data}"
"""In a task's YAML, the folder of the prepared evaluation items."""
FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Values of ``dataset_path`` that read files named in the task, not a dataset on the Hub."""


KEPT_TEMPLATES = 1024


class _TolerantLoader(yaml.SafeLoader):
    """Reads a task's names although its ``!function`` tags mean nothing here."""


_TolerantLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


def render_tasks(include_path: Path, data: Path | None, out: Path) -> Path:
    """Copies a task folder with :data:`DATA` filled in, so that what was evaluated is kept as it was run.

    Args:
        include_path: a folder with task YAMLs, and the Python files and bases that they name.
        data: the prepared items; its path becomes absolute.
        out: the folder to make; what is there goes.

    Raises:
        ConfigError: the folder isn't there, or a task wants data and none was prepared.
    """
    if not include_path.is_dir():
        raise ConfigError(
            Problem("no such folder", key="include_path", origin=str(include_path), expected="a folder of task YAMLs")
        )
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(include_path, out, ignore=shutil.ignore_patterns("__pycache__"))
    for path in out.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        if DATA not in text:
            continue
        if data is None:
            raise ConfigError(
                Problem(
                    f"the task wants {DATA}, and no evaluation data was prepared",
                    origin=str(include_path / path.relative_to(out)),
                    hint="give the evaluate module a `data` section",
                )
            )
        # `datasets` takes the names of data_files as patterns.
        path.write_text(text.replace(DATA, glob.escape(str(data.absolute()))), encoding="utf-8")
    return out


def local_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """The tasks and groups of a folder's YAML files by name, functions unresolved."""
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_TolerantLoader)
        if isinstance(config, dict) and (name := config.get("group") or config.get("task")):
            found[str(name)] = config
    return found


def needs_network(names: Iterable[str], local: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any of the tasks may have to download something; False only where all read local files."""
    for name in names:
        config = local.get(name)
        if config is None:
            return True
        if "group" in config:
            members = config.get("task") or []
            if needs_network([member for member in members if isinstance(member, str)], local):
                return True
            if not all(isinstance(member, str) for member in members):
                return True
        elif (path := config.get("dataset_path")) not in FILE_FORMATS and not Path(str(path)).exists():
            return True
    return False


def task_manager(names: Sequence[str], folder: Path | None, origin: str = "") -> Any:
    """lm-eval's ``TaskManager``, with its library only where a name isn't local: indexing it takes seconds.

    Raises:
        ConfigError: names that neither has, with close ones.
    """
    from lm_eval.tasks import TaskManager

    keep_templates()
    include_path = str(folder) if folder else None
    manager = TaskManager(include_path=include_path, include_defaults=False)
    if any(name not in manager.all_tasks for name in names):
        manager = TaskManager(include_path=include_path, include_defaults=True)
    problems = []
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            problems.append(
                Problem(
                    f"no task or group {name!r}",
                    key="tasks",
                    origin=origin,
                    hint=f"did you mean {', '.join(near)}?" if near else f"local tasks: {folder}",
                )
            )
    if problems:
        raise ConfigError(problems)
    return manager


def keep_templates() -> None:
    """Has lm-eval compile a task's template once: it does so for each field of each item, several times."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=KEPT_TEMPLATES)(env.from_string)


def load_task(
    manager: Any, name: str, num_fewshot: int | None, seed: int, gen_kwargs: Mapping[str, Any] | None = None
) -> Any:
    """A task, or a group with its tasks, ready for ``lm_eval.evaluate``.

    Args:
        manager: from :func:`task_manager`.
        name: of a task or group.
        num_fewshot: examples in the prompt; None for the task's own number. A task that sets 0 itself keeps it,
            as in lm-eval.
        seed: of the choice of examples.
        gen_kwargs: settings of generation that go before the task's own.
    """
    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=seed)
        if gen_kwargs and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(gen_kwargs), update=True)
    return loaded


def wants_chat(loaded: Any, setting: bool | str) -> bool:
    """Whether a task's questions go through the chat template; ``auto`` asks the task's ``metadata.chat``.

    Raises:
        ConfigError: a group mixes tasks that want it with others.
    """
    if setting != "auto":
        return bool(setting)
    wanted = {name: bool((task.config.metadata or {}).get("chat")) for name, task in loaded["tasks"].items()}
    if len(set(wanted.values())) > 1:
        raise ConfigError(
            Problem(
                f"a group mixes tasks with and without the chat template: {wanted}",
                key="apply_chat_template",
                hint="list its tasks one by one, or set apply_chat_template to true or false",
            )
        )
    return any(wanted.values())
