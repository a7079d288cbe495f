"""Finds what lm-eval would refuse in a task's YAML, before anything is trained: lm-eval itself looks only after it."""

from __future__ import annotations

import ast
import difflib
import fnmatch
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from titanflow.common.errors import Problem, did_you_mean
from titanflow.evals.asked_tasks import INLINE
from titanflow.evals.fewshot import tested_split
from titanflow.evals.known_names import task_keys
from titanflow.evals.score_checks import score_problems
from titanflow.evals.task_yaml import Function, SingleTask, as_list
from titanflow.evals.templates import syntax_problems
from titanflow.evals.value_checks import value_problems

DATA = "${data}"
"""The folder of the prepared evaluation items, in a task's YAML."""
FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Values of ``dataset_path`` that read files named in the task, not a dataset on the Hub."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
LONGEST_NAME = 96
"""Most characters of a repository's name on the Hub."""
AT_RUN_TIME = ("globals", "locals", "vars", "exec", "setattr", "__getattr__")
"""Names by which a Python file may define functions while it is imported."""
NEVER_ASKED = {
    "unsafe_code": "the task runs the code that a model writes, and titanflow runs none",
    "doc_to_image": "the task shows images, and the models here read text alone",
    "doc_to_audio": "the task plays sound, and the models here read text alone",
}
"""Keys of tasks that would end lm-eval at the first item, and why."""


def task_problems(task: SingleTask) -> list[Problem]:
    """All problems with a task, apart from missing data files. Of lm-eval's own tasks only the kind is checked."""
    found = list(_kind_problems(task))
    if task.of_library:
        return found
    found += _function_problems(task)
    if "class" in task.config:
        return found
    unknown = list(_key_problems(task))
    found += [*unknown, *_dataset_problems(task), *syntax_problems(task)]
    # A misspelt key is also missing under its right name; the problems that follow from that would only confuse.
    return found if unknown else [*found, *value_problems(task), *score_problems(task)]


def missing_items(task: SingleTask, items: Collection[str] | None) -> list[Problem]:
    """Problems for missing files of items that one of the user's own tasks reads.

    ``items`` are the files below the folder that :data:`DATA` stands for; None if nothing is prepared.
    """
    if task.of_library:
        return []
    problems = [task.yaml.problem(DATA_FILES, *found) for found in _missing(data_files(task.config), items)]
    uses_data = any(DATA in file.read_text(encoding="utf-8", errors="replace") for file in task.yaml.files)
    if uses_data and items is None and not problems:
        problems.append(task.yaml.problem("dataset_kwargs", *_UNPREPARED))
    return problems


def data_files(config: Mapping[str, Any]) -> list[str]:
    """The files of all splits that a task's ``dataset_kwargs.data_files`` names."""
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    each = files.values() if isinstance(files, Mapping) else [files]
    return [str(name) for names in each for name in as_list(names)]


def tested_files(config: Mapping[str, Any]) -> list[str]:
    """The files of the split that a task is evaluated on, as it names them; none if it names no files."""
    kwargs, split = config.get("dataset_kwargs"), tested_split(config)
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    if isinstance(files, Mapping):
        files = files.get(split) if isinstance(split, str) else None
    return [str(name) for name in as_list(files)]


def item_files(task: SingleTask, folder: Path | None, unprepared: Mapping[str, Path] | None = None) -> list[Path]:
    """The files of the split that one of the user's own tasks is evaluated on; :data:`DATA` stands for ``folder``.

    Items that are still to be prepared are read from ``unprepared``, by their path below the folder. Empty if a file
    is missing, or if other ``dataset_kwargs`` may change the rows' columns.
    """
    config = task.config
    kwargs = config.get("dataset_kwargs")
    if task.of_library or config.get("dataset_path") not in ("json", "csv") or not isinstance(kwargs, Mapping):
        return []
    names = tested_files(config)
    if set(kwargs) != {"data_files"} or (folder is None and any(DATA in name for name in names)):
        return []
    found = unprepared or {}
    paths = [found.get(name.removeprefix(f"{DATA}/")) or Path(name.replace(DATA, str(folder))) for name in names]
    # Not Path.is_file, which is an error for a name too long.
    return paths if all(map(os.path.isfile, paths)) else []


def is_remote(name: str) -> bool:
    """Whether a data file is a URL rather than a path."""
    return "://" in name


def needs_network(task: SingleTask) -> bool:
    """Whether a task may have to download something."""
    path = task.config.get("dataset_path")
    if path in FILE_FORMATS:
        return any(map(is_remote, data_files(task.config)))
    return path is None or not os.path.exists(str(path))  # noqa: PTH110


DATA_FILES = "dataset_kwargs.data_files"
_UNPREPARED = (
    f"the task wants {DATA}, and no evaluation data is prepared",
    "a `data` section in the evaluate module",
    "data: {kind: evals, path: a file or folder of items}",
)


def _missing(names: Iterable[str], items: Collection[str] | None) -> Iterator[tuple[str, str, str]]:
    for name in names:
        if is_remote(name):
            continue
        wanted = name.removeprefix(DATA).lstrip("/")
        if not name.startswith(DATA):
            if not os.path.exists(name) and not any(glob.iglob(name, recursive=True)):  # noqa: PTH110, PTH207
                expected = "a file, by its whole path or from the folder of the command"
                yield f"no such file: {name}", expected, f"or {DATA}/… for one of the evaluate module's `data`"
        elif items is None:
            yield _UNPREPARED
        elif not any(fnmatch.fnmatch(item, wanted) for item in items):
            near = difflib.get_close_matches(wanted, items, n=1)
            hint = f"did you mean {DATA}/{near[0]}?" if near else ""
            yield f"{name} isn't among the prepared items", f"one of {', '.join(sorted(items)[:20])}", hint


def _kind_problems(task: SingleTask) -> Iterator[Problem]:
    for key, message in NEVER_ASKED.items():
        # Empty texts and false are lm-eval's defaults.
        if task.config.get(key):
            out = f"leave {task.name} out of the evaluation's tasks"
            hint = f"{out}; lm_eval's own command can evaluate it on the exported model"
            yield task.yaml.problem(key, message, "a task of texts whose answers are compared", hint)


def _function_problems(task: SingleTask) -> Iterator[Problem]:
    for key, value in task.config.items():
        for function in functions(value):
            path = task.yaml.stands.get(key, task.yaml.path)
            if reason := _unfound(function.name, path.parent):
                expected = f"module.function, of a file in {path.parent.name}/ or an installed module"
                yield task.yaml.problem(key, f"found !function {function.name}: {reason}", expected)


def functions(value: Any) -> Iterator[Function]:
    """The functions in a value. YAML's aliases may make it contain itself."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Function):
            yield one
        elif isinstance(one, Mapping | list) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one


def _unfound(function: str, folder: Path) -> str:
    """Why lm-eval wouldn't find a function; empty if it would. It looks beside the YAML first."""
    module, _, name = function.rpartition(".")
    if not module:
        return "it names no module"
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    if path.is_file():
        return _undefined(name, path)
    with suppress(ValueError):
        if find_spec(module.partition(".")[0]):
            return ""
    return f"there is no {path.name}, and no such module is installed"


def _undefined(name: str, path: Path) -> str:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"{path.name} isn't Python: {error}"
    names: set[str] = set()
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    # Names from a star import, and those that are made at run time, aren't known here.
    is_open = "*" in names or any(isinstance(node, ast.Name) and node.id in AT_RUN_TIME for node in nodes)
    return "" if name in names or is_open else f"{path.name} has no {name}"


def _key_problems(task: SingleTask) -> Iterator[Problem]:
    known = task_keys()
    for key in task.config if known else ():
        if key not in known:
            yield task.yaml.problem(key, "unknown key", "a key of lm-eval's tasks", did_you_mean(key, known))


def _dataset_problems(task: SingleTask) -> Iterator[Problem]:
    config = task.config
    if not any(config.get(key) for key in INLINE):
        expected = f"dataset_path: one of {', '.join(FILE_FORMATS)}, a folder, or a dataset on the Hub"
        yield task.yaml.problem("task", f"{task.name} reads no data", expected)
    path = config.get("dataset_path")
    if isinstance(path, str) and path and not _is_dataset(path):
        expected = f"one of {', '.join(FILE_FORMATS)}, a folder, or owner/name on the Hub"
        yield task.yaml.problem("dataset_path", f"found {path!r:.80}", expected, did_you_mean(path, FILE_FORMATS))
    kwargs = config.get("dataset_kwargs") or {}
    is_named = isinstance(kwargs, Mapping) and (kwargs.get("data_files") or kwargs.get("data_dir"))
    if config.get("dataset_path") in FILE_FORMATS and not is_named:
        expected = f'dataset_kwargs: {{data_files: {{test: "{DATA}/items.jsonl"}}}}'
        yield task.yaml.problem("dataset_path", f"found {config['dataset_path']!r}, and no files to read", expected)
    evaluated = next((key for key in ("test_split", "validation_split") if config.get(key)), None)
    if evaluated is None:
        expected = "test_split or validation_split: a split of the dataset"
        yield task.yaml.problem("task", f"{task.name} names no split to be evaluated on", expected)
    elif config.get("dataset_path") in FILE_FORMATS and is_named and (files := kwargs.get("data_files")):
        splits = list(map(str, files)) if isinstance(files, Mapping) else ["train"]
        of_examples = config.get("fewshot_config")
        wanted = {key: config.get(key) for key in (evaluated, "fewshot_split")}
        wanted["fewshot_config"] = of_examples.get("split") if isinstance(of_examples, Mapping) else None
        for key, split in wanted.items():
            if split is not None and split not in splits:
                message = f"found {split!r:.80}, and data_files has {', '.join(splits)}"
                yield task.yaml.problem(key, message, "one of them")
        for split, names in files.items() if isinstance(files, Mapping) else ():
            if not as_list(names):
                message, expected = f"the split {split} names no file", f"{DATA}/… or a path"
                yield task.yaml.problem("dataset_kwargs", message, expected)


def _is_dataset(path: str) -> bool:
    """Whether a name is a file format, a folder, or may be a dataset on the Hub and no misspelt format."""
    if path in FILE_FORMATS or os.path.exists(path):  # noqa: PTH110  (Path's own is an error for a name too long)
        return True
    is_typo = "/" not in path and bool(difflib.get_close_matches(path, FILE_FORMATS, n=1, cutoff=0.7))
    return len(path) <= LONGEST_NAME and HUB_NAME.fullmatch(path) is not None and not is_typo
