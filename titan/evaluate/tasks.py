"""Evaluation tasks: your own YAML files with their data filled in, and those of lm-eval's library.

A task's YAML may run code (``!function``, Jinja): use only task folders that you trust.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.after_training import Evaluate
from titanflow.data.dataset_info import is_complete, read_facts
from titanflow.evals.asked_as_chat import HINT, Setting, asked_as_chat, mixed
from titanflow.evals.asked_tasks import AskedTasks, asked_by
from titanflow.evals.fewshot import named_splits, shots
from titanflow.evals.task_checks import DATA, data_files, needs_network
from titanflow.evals.task_yaml import write_keys
from titanflow.runs.contract import TASKS_FOLDER, StageRun

KEPT_TEMPLATES = 1024


def prepare_tasks(run: StageRun, settings: Evaluate) -> tuple[AskedTasks, Path | None]:
    """The tasks to evaluate, and the folder with your own, rendered; turns the Hub off if no task needs it.

    Call it before lm-eval or transformers are imported, since they read that switch on import.
    """
    asked, folder = rendered_tasks(run, settings)
    stay_offline([asked], bool(settings.remote_code))
    return asked, folder


def rendered_tasks(run: StageRun, settings: Evaluate) -> tuple[AskedTasks, Path | None]:
    """As :func:`prepare_tasks`, and leaves the Hub as it is."""
    named = settings.include_path
    if named is not None and not Path(named).is_dir():
        raise ConfigError(Problem("no such folder", "include_path", named, "a folder of task YAMLs"))
    asked = asked_by(asdict(settings), run.stage, run.origins)
    if asked.problems:
        raise ConfigError(asked.problems)
    folder = render_tasks(asked, run.data.train, run.folder / TASKS_FOLDER, settings.num_fewshot) if named else None
    return asked, folder


def stay_offline(asked: Iterable[AskedTasks], loads_code: bool) -> None:
    """Turns the Hub off unless a task needs it, or a model whose own code is loaded from there."""
    if not loads_code and not any(needs_network(task) for one in asked for task in one.single):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def render_tasks(asked: AskedTasks, data: Path | None, out: Path, num_fewshot: int | None = None) -> Path:
    """Copies a task folder to ``out`` with :data:`DATA` filled in, so that the tasks are kept as they were run.

    Of the YAML files only those that the tasks need are copied; other files (Python, templates) all. ``data`` has the
    prepared items. With ``num_fewshot`` a task's file names the split of its examples.
    """
    assert asked.folder is not None
    needed = {os.path.normpath(path) for path in asked.files}

    def others(folder: str, names: list[str]) -> list[str]:
        yaml = (name for name in names if name.endswith(".yaml"))
        return ["__pycache__", *(name for name in yaml if os.path.normpath(Path(folder, name)) not in needed)]

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(asked.folder, out, ignore=others)
    for path in asked.files:
        text = path.read_text(encoding="utf-8")
        if DATA not in text:
            continue
        if data is None:
            message, hint = f"the task wants {DATA}, and no evaluation data was prepared", "give it a `data` section"
            raise ConfigError(Problem(message, origin=str(path), hint=hint))
        # `datasets` takes the names of data_files as patterns.
        text = text.replace(DATA, glob.escape(str(data.absolute())))
        (out / path.relative_to(asked.folder)).write_text(text, encoding="utf-8")
    for task in asked.single:
        if not task.of_library and (keys := named_splits(task, num_fewshot)):
            write_keys(out / task.yaml.path.relative_to(asked.folder), keys)
    return out


def prepared_items(data: Path | None) -> dict[str, Any]:
    """The ``dataset.json`` of the prepared items; empty if there is none."""
    return read_facts(data) if data and is_complete(data) else {}


def reference(items: Mapping[str, Any], asked: AskedTasks) -> dict[str, float]:
    """The bits per byte that ``xz`` needs, for each task on a text that the preparation compressed."""
    compressed = {f"{DATA}/{file}": float(bits) for file, bits in items.get("xz_bits_per_byte", {}).items()}
    texts = ((task.name, compressed.get(file)) for task in asked.single for file in data_files(task.config))
    return {name: bits for name, bits in texts if bits is not None}


def task_manager(asked: AskedTasks, folder: Path | None) -> Any:
    """lm-eval's ``TaskManager`` over the files that the tasks need, since indexing the whole library takes long.

    ``folder`` has the user's own tasks, rendered; they take precedence over the library's.
    """
    from lm_eval.tasks import TaskManager

    keep_templates()
    library = dict.fromkeys(path.parent for path in asked.library_files)
    return TaskManager(include_path=[*map(str, library), *([str(folder)] if folder else [])], include_defaults=False)


def keep_templates() -> None:
    """Has lm-eval compile each template once, instead of several times for each field of each item."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=KEPT_TEMPLATES)(env.from_string)


def load_task(
    manager: Any,
    name: str,
    num_fewshot: int | None,
    seed: int,
    gen_kwargs: Mapping[str, Any] | None = None,
    own: Collection[str] = (),
) -> Any:
    """A task, or a group with its tasks, ready for ``lm_eval.evaluate``.

    ``num_fewshot`` None keeps the task's own number of examples. A task that sets 0 itself keeps it, as in lm-eval.
    ``seed`` chooses the examples, ``gen_kwargs`` override the task's. ``own`` are the tasks that aren't the library's:
    none of their items may be among their examples.
    """
    loaded = manager.load([name])
    for single, task in loaded["tasks"].items():
        config = {key: task.get_config(key) for key in ("num_fewshot", "output_type")}
        task.set_config(key="num_fewshot", value=shots(config, num_fewshot))
        task.set_fewshot_seed(seed=seed)
        _check_examples(single, task, single in own)
        if gen_kwargs and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(gen_kwargs), update=True)
    return loaded


def _check_examples(name: str, task: Any, is_own: bool) -> None:
    asked = task.get_config("num_fewshot")
    if not asked or not hasattr(task, "sampler"):
        return
    split = task.fewshot_cfg.split
    is_left_out = split is not None and split == task.config.test_split
    # From the evaluated split lm-eval draws one more, and leaves out the asked item and its duplicates.
    alike = Counter(map(_as_text, task.sampler.fewshot_docs()))
    there = alike.total() - (max(alike.values(), default=0) if is_left_out else 0)
    if asked > there:
        where = f" in {split!r} beside the asked item" if is_left_out else ""
        message = f"{name} has {there} examples{where}, and {asked} are asked for"
        raise ConfigError(Problem(message, "num_fewshot", expected="fewer"))
    if is_own and not is_left_out and (shared := sum(_as_text(item) in alike for item in task.eval_docs)):
        message = f"{shared} of {len(task.eval_docs)} items of {name} are among its examples, with their answers"
        hint = f"fewshot_split: {task.config.test_split} takes them from what is asked, and leaves out the asked one"
        raise ConfigError(Problem(message, "num_fewshot", expected="examples that aren't asked", hint=hint))


def _as_text(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=str)


def wants_chat(loaded: Any, name: str, setting: Setting) -> bool:
    """Whether a task or group goes through the chat template; a group can't mix both kinds of tasks."""
    tasks = {task: loaded_task.config.metadata for task, loaded_task in loaded["tasks"].items()}
    wanted = asked_as_chat(name, tasks, setting)
    if message := mixed(name, wanted):
        raise ConfigError(Problem(message, key="chat", hint=HINT))
    return any(wanted.values())
