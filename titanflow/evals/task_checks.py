"""What lm-eval refuses of a task's YAML once it loads the task: after everything was trained, unless a plan asks."""

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

from titanflow.common.errors import Problem
from titanflow.evals.asked_tasks import INLINE
from titanflow.evals.known_names import task_keys
from titanflow.evals.score_checks import score_problems
from titanflow.evals.task_yaml import Function, SingleTask, as_list
from titanflow.evals.templates import syntax_problems
from titanflow.evals.value_checks import value_problems

DATA = "${data}"
"""In a task's YAML, the folder of the prepared evaluation items."""
FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Values of ``dataset_path`` that read files named in the task, not a dataset on the Hub."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
LONGEST_NAME = 96
"""Characters of a repository's name on the Hub."""
AT_RUN_TIME = ("globals", "locals", "vars", "exec", "setattr", "__getattr__")
"""What a Python file names that makes functions as it is imported."""
NEVER_ASKED = {
    "unsafe_code": "the task runs the code that a model writes, and titanflow runs none",
    "doc_to_image": "the task shows images, and the models here read text alone",
    "doc_to_audio": "the task plays sound, and the models here read text alone",
}
"""Keys of tasks at which lm-eval ends as the first item is asked, and why."""


def task_problems(task: SingleTask) -> list[Problem]:
    """Everything that is wrong with a task, whatever lies on the disk beside it.

    Of lm-eval's own tasks only the kind may be wrong.
    """
    found = list(_kind_problems(task))
    if task.of_library:
        return found
    found += _function_problems(task)
    if "class" in task.config:
        return found
    unknown = list(_key_problems(task))
    found += [*unknown, *_dataset_problems(task), *syntax_problems(task)]
    # A key that is misspelt is missing as well, and what follows from that is no mistake of its own.
    return found if unknown else [*found, *value_problems(task), *score_problems(task)]


def missing_items(task: SingleTask, items: Collection[str] | None) -> list[Problem]:
    """The files of items that a task of the user's own reads and that aren't there.

    ``items`` are the files below the folder that :data:`DATA` stands for; None where nothing is prepared.
    """
    if task.of_library:
        return []
    problems = [task.yaml.problem(DATA_FILES, *found) for found in _missing(data_files(task.config), items)]
    uses_data = any(DATA in file.read_text(encoding="utf-8", errors="replace") for file in task.yaml.files)
    if uses_data and items is None and not problems:
        problems.append(task.yaml.problem("dataset_kwargs", *_UNPREPARED))
    return problems


def data_files(config: Mapping[str, Any]) -> list[str]:
    """The files that a task's ``dataset_kwargs.data_files`` names, of all splits."""
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    each = files.values() if isinstance(files, Mapping) else [files]
    return [str(name) for names in each for name in as_list(names)]


def item_files(task: SingleTask, folder: Path | None, unprepared: Mapping[str, Path] | None = None) -> list[Path]:
    """The files of the split that a task of the user's own is evaluated on, with :data:`DATA` for ``folder``.

    Items that are still to be prepared are read from ``unprepared``, by their path below the folder. None where one of
    them isn't there, or columns aren't what its rows have.
    """
    config = task.config
    kwargs = config.get("dataset_kwargs")
    if task.of_library or config.get("dataset_path") not in ("json", "csv") or not isinstance(kwargs, Mapping):
        return []
    files = kwargs.get("data_files")
    split = config.get("test_split") or config.get("validation_split")
    if isinstance(files, Mapping) and not isinstance(split, str):
        return []
    names = as_list(files.get(split) if isinstance(files, Mapping) else files)
    if set(kwargs) != {"data_files"} or (folder is None and any(DATA in str(name) for name in names)):
        return []
    found = unprepared or {}
    paths = [
        found.get(str(name).removeprefix(f"{DATA}/")) or Path(str(name).replace(DATA, str(folder))) for name in names
    ]
    # A name that no file can have is none that is there.
    return paths if all(map(os.path.isfile, paths)) else []


def is_remote(name: str) -> bool:
    """Whether a data file is an address, rather than a path."""
    return "://" in name


def needs_network(task: SingleTask) -> bool:
    """Whether a task may have to download something; not where it reads local files."""
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
        if not name.startswith(DATA):
            if not os.path.exists(name) and not any(glob.iglob(name, recursive=True)):  # noqa: PTH110, PTH207
                expected = "a file, by its whole path or from the folder of the command"
                yield f"no such file: {name}", expected, f"or {DATA}/… for one of the evaluate module's `data`"
            continue
        if items is None:
            yield _UNPREPARED
            continue
        wanted = name.removeprefix(DATA).lstrip("/")
        if not any(fnmatch.fnmatch(item, wanted) for item in items):
            near = difflib.get_close_matches(wanted, items, n=1)
            hint = f"did you mean {DATA}/{near[0]}?" if near else ""
            yield f"{name} isn't among the prepared items", f"one of {', '.join(sorted(items)[:20])}", hint


def _kind_problems(task: SingleTask) -> Iterator[Problem]:
    for key, message in NEVER_ASKED.items():
        # The empty texts and false are what lm-eval has where a task says nothing.
        if task.config.get(key):
            hint = (
                f"leave {task.name} out of evaluate.tasks; lm_eval itself can be asked for it, with the exported model"
            )
            yield task.yaml.problem(key, message, "a task of texts whose answers are compared", hint)


def _function_problems(task: SingleTask) -> Iterator[Problem]:
    for key, value in task.config.items():
        for function in functions(value):
            path = task.yaml.stands.get(key, task.yaml.path)
            if reason := _unfound(function.name, path.parent):
                expected = f"module.function, of a file in {path.parent.name}/ or an installed module"
                yield task.yaml.problem(key, f"found !function {function.name}: {reason}", expected)


def functions(value: Any) -> Iterator[Function]:
    """The functions in a value, which may hold itself by an alias."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Function):
            yield one
        elif isinstance(one, Mapping | list) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one


def _unfound(function: str, folder: Path) -> str:
    """Why lm-eval wouldn't find a function, which it looks for beside the YAML first; empty where it would."""
    module, _, name = function.rpartition(".")
    path = folder.joinpath(*module.split(".")).with_suffix(".py") if module else folder
    if not module:
        return "it names no module"
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
    # What a star brings, and what is made at run time, can't be read here.
    is_open = "*" in names or any(isinstance(node, ast.Name) and node.id in AT_RUN_TIME for node in nodes)
    return "" if name in names or is_open else f"{path.name} has no {name}"


def _key_problems(task: SingleTask) -> Iterator[Problem]:
    known = task_keys()
    for key in task.config if known else ():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            yield task.yaml.problem(key, "unknown key", "a key of lm-eval's tasks", _did_you_mean(near))


def _dataset_problems(task: SingleTask) -> Iterator[Problem]:
    config = task.config
    if not any(config.get(key) for key in INLINE):
        expected = f"dataset_path: one of {', '.join(FILE_FORMATS)}, a folder, or a dataset on the Hub"
        yield task.yaml.problem("task", f"{task.name} reads no data", expected)
    path = config.get("dataset_path")
    if isinstance(path, str) and path and not _is_dataset(path):
        near = difflib.get_close_matches(path, FILE_FORMATS, n=1)
        expected = f"one of {', '.join(FILE_FORMATS)}, a folder, or owner/name on the Hub"
        yield task.yaml.problem("dataset_path", f"found {path!r:.80}", expected, _did_you_mean(near))
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
    """Whether a name is a format of files, a folder, or may be a dataset on the Hub; a misspelt format is none."""
    if path in FILE_FORMATS or os.path.exists(path):  # noqa: PTH110  (Path's own is an error for a name too long)
        return True
    is_typo = "/" not in path and bool(difflib.get_close_matches(path, FILE_FORMATS, n=1, cutoff=0.7))
    return len(path) <= LONGEST_NAME and HUB_NAME.fullmatch(path) is not None and not is_typo


def _did_you_mean(near: list[str]) -> str:
    return f"did you mean {near[0]}?" if near else ""
