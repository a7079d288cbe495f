"""The files that scored a model, published with it so that anyone can score it again: the experiment's own tasks, the
suites, and the numbers of the scored items if items that were trained on were left out.

The YAML files are those that the evaluation ran, from its own folder. The paths of their items are rewritten for the
published folder, so that nothing names a place on this machine.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from titanflow.common.errors import ConfigError, Problem
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.evals.suites import FOLDER
from titanflow.evals.task_checks import DATA, FILE_FORMATS, functions, is_remote
from titanflow.evals.task_yaml import Function, read_yaml
from titanflow.files.yaml_source import display
from titanflow.publish.bundle import ITEMS, SCORED, SUITES, TASKS, Bundle, Entry, bytes_entry, file_entry, is_published
from titanflow.publish.lineage import EvaluatedStage
from titanflow.publish.private import private_part
from titanflow.runs.scores.contamination import Contamination

PATH_KEYS = ("data_files", "data_dir", "dataset_path")
"""The keys of a task, at any depth, whose values may be paths."""


class _Dumper(yaml.SafeDumper):
    """Writes a function as the ``!function`` that named it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(Function, lambda dumper, function: dumper.represent_scalar("!function", function.name))


def suite_files(asked: AskedTasks) -> Bundle:
    """The files of the suites that were asked for, which lm-eval's library lacks."""
    paths = [path for path in asked.library_files if path.is_relative_to(FOLDER)]
    return {f"{SUITES}/{path.name}": file_entry(path) for path in paths}


def scored_numbers(contamination: Contamination | None) -> Bundle:
    """For each task the numbers of the scored items, as lm-eval takes them; empty if all were scored."""
    if contamination is None or not contamination.dropped_items:
        return {}
    scored = {name: contamination.tasks[name].scored for name in contamination.dropped_items}
    return {SCORED: bytes_entry((json.dumps(scored) + "\n").encode())}


def task_files(evaluation: EvaluatedStage) -> Bundle:
    """The YAML of the experiment's own tasks, the Python files beside it if they name functions, and their items."""
    folder, items = evaluation.asked.folder, _Items.of(evaluation)
    files: dict[str, Entry] = {}
    has_functions = False
    if folder is None:
        return files
    for path in evaluation.asked.files:
        own = read_yaml(path)
        told = items.told(own)
        data = path.read_bytes() if told == own else _dumped(told)
        files[f"{TASKS}/{path.relative_to(folder).as_posix()}"] = bytes_entry(data)
        has_functions |= any(True for _ in functions(own))
    if has_functions:
        modules = (path for path in sorted(folder.rglob("*.py")) if path.is_file() and not path.is_symlink())
        files |= {f"{TASKS}/{path.relative_to(folder).as_posix()}": bytes_entry(path.read_bytes()) for path in modules}
    files |= {name: file_entry(path) for name, path in sorted(items.found.items())}
    if problems := [Problem("no name for a published file", name) for name in files if not is_published(name)]:
        raise ConfigError(problems)
    return files


def task_secrets(asked: AskedTasks, publish: str) -> Iterator[Problem]:
    """The secrets that the files of one's own tasks would publish; the paths of their items are rewritten.

    ``asked`` are tasks whose files can be read, as they are before the evaluation renders them; ``publish`` is the name
    of the publication.
    """
    names, texts = _Items("", None), {}
    configs = {path: read_yaml(path) for path in asked.files}
    for path, own in configs.items():
        told, text = names.told(own), path.read_text(encoding="utf-8")
        texts[path] = text if told == own and DATA not in text else _dumped(told).decode()
    if asked.folder and any(True for own in configs.values() for _ in functions(own)):
        texts |= {path: path.read_text(encoding="utf-8", errors="replace") for path in asked.folder.rglob("*.py")}
    for path, text in texts.items():
        if what := private_part(text):
            hint = f"{publish}.own_tasks: false publishes no files of tasks"
            yield Problem(f"would publish {what}", display(path), expected="what everyone may read", hint=hint)


def _dumped(config: dict[str, Any]) -> bytes:
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110).encode()


@dataclass
class _Items:
    """The files of items that tasks read, by their published names.

    ``written`` is the folder of the prepared items as the rendered tasks name it, ``now`` where it lies. ``places``
    numbers the other folders.
    """

    written: str
    now: Path | None
    found: dict[str, Path] = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, evaluation: EvaluatedStage) -> _Items:
        items = evaluation.items
        return cls(glob.escape(str(items.absolute())) if items else "", evaluation.run.data.train)

    def told(self, value: Any, is_path: bool = False) -> Any:
        """A task's config with the paths of the published folder; notes the files behind them."""
        if isinstance(value, dict):
            return {key: self.told(one, is_path or key in PATH_KEYS) for key, one in value.items()}
        if isinstance(value, list):
            return [self.told(one, is_path) for one in value]
        return self._path(value) if is_path and isinstance(value, str) else value

    def _path(self, value: str) -> str:
        if value in FILE_FORMATS or is_remote(value):
            return value
        if self.written and self.now is not None and Path(value).is_relative_to(self.written):
            return self._published(glob.escape(str(self.now)), os.path.relpath(value, self.written), ITEMS)
        pattern = Path(value)
        if not any(_files(str(pattern))):
            return value
        # The deepest folder above it without a wildcard.
        above = next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))
        place = self.places.setdefault(above.absolute(), f"{ITEMS}/{len(self.places) + 1}")
        return self._published(glob.escape(str(above)), os.path.relpath(pattern, above), place)

    def _published(self, above: str, pattern: str, place: str) -> str:
        folder = Path(next(glob.iglob(above), above))  # noqa: PTH207
        for path in _files(os.path.join(above, pattern)):  # noqa: PTH118
            self.found[f"{place}/{path.relative_to(folder).as_posix()}"] = path
        return f"{place}/{pattern}"


def _files(pattern: str) -> Iterator[Path]:
    """The files that a path or pattern names, or all below a folder."""
    exact = Path(pattern)
    for path in [exact] if exact.exists() else map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207
        if path.is_dir():
            yield from (one for one in sorted(path.rglob("*")) if one.is_file())
        elif path.is_file():
            yield path
