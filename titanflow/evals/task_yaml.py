"""A task's YAML as lm-eval reads it: its own keys override included ones. Functions are named, not run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from titanflow.common.errors import ConfigError, Problem
from titanflow.files.alias_size import BoundedAliases
from titanflow.files.yaml_loader import FAST_LOADER
from titanflow.files.yaml_source import display, refusing_what_is_no_yaml


@dataclass(frozen=True)
class Function:
    """A function that ``!function module.name`` names, of a file beside the YAML or of an installed module."""

    name: str


class _Loader(BoundedAliases, FAST_LOADER):
    """Reads ``!function`` as its name."""


_Loader.add_constructor("!function", lambda loader, node: Function(str(loader.construct_scalar(node))))


class _Dumper(yaml.SafeDumper):
    """Writes ``!function`` as it was read."""


_Dumper.add_representer(Function, lambda dumper, function: dumper.represent_scalar("!function", function.name))


@dataclass
class TaskYaml:
    """A task's or group's merged config. ``stands`` has the file of each key, ``files`` all files that were read."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    stands: dict[str, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def problem(self, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
        """A problem with a key's value, at the key's file and line."""
        path = self.stands.get(key, self.path)
        return Problem(message, key, f"{display(path)}:{line_of(path, key)}", expected, hint)


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's own keys.

    Raises:
        ConfigError: it can't be read, isn't YAML, or its top isn't a mapping.
    """
    with refusing_what_is_no_yaml(path):
        config = yaml.load(path.read_bytes().decode("utf-8-sig"), _Loader)
    if not isinstance(config, dict):
        origin = f"{display(path)}:1"
        raise ConfigError(Problem("the top of the file isn't a mapping", origin=origin, expected="task: a name, …"))
    return {str(key): value for key, value in config.items()}


def write_keys(path: Path, keys: Mapping[str, Any]) -> None:
    """Sets top-level keys of a file; its comments are lost."""
    text = yaml.dump({**read_yaml(path), **keys}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def read_task(path: Path, folder: Path) -> TaskYaml:
    """A task file of ``folder``, merged with the files that it includes, of which later ones override earlier ones.

    An included file must lie in the folder, of which a run takes a copy.
    """
    task = TaskYaml(path)
    _merge(task, path, folder)
    return task


def _merge(task: TaskYaml, path: Path, folder: Path) -> None:
    task.files.append(path)
    own = read_yaml(path)
    for name in as_list(own.pop("include", None)):
        _merge(task, _included(task, path, str(name), folder), folder)
    task.config |= own
    task.stands |= dict.fromkeys(own, path)


def _included(task: TaskYaml, path: Path, name: str, folder: Path) -> Path:
    # Resolves ``../`` but no symbolic links.
    found = Path(os.path.normpath(path.parent / name))
    origin = f"{display(path)}:{line_of(path, 'include')}"
    if not found.is_file():
        raise ConfigError(Problem(f"no such file: {name}", "include", origin, f"a path from {display(path.parent)}"))
    if Path(name).is_absolute() or not found.is_relative_to(os.path.normpath(folder)):
        message, expected = f"{name} leads out of the tasks' folder", f"a path within {display(folder)}"
        hint = "a run keeps a copy of that folder"
        raise ConfigError(Problem(message, "include", origin, expected, hint))
    if any(found.samefile(read) for read in task.files):
        raise ConfigError(Problem(f"{name} is included twice", "include", origin, "each file once"))
    return found


def line_of(path: Path, key: str) -> int:
    """The line of a file's top-level key, or 1."""
    name = re.escape(key.partition(".")[0])
    found = re.search(rf"^[\"']?{name}[\"']?[ \t]*:", path.read_text(encoding="utf-8", errors="replace"), re.M)
    return found.string.count("\n", 0, found.start()) + 1 if found else 1


def as_list(value: Any) -> list[Any]:
    """The items of a value that may be a list, a single item, or None."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def files_by_split(config: Mapping[str, Any]) -> Mapping[Any, Any]:
    """``dataset_kwargs.data_files`` of a task; empty if it names no splits."""
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    return files if isinstance(files, Mapping) else {}


@dataclass
class SingleTask:
    """A single task. ``config`` includes the settings of the groups above it."""

    name: str
    config: dict[str, Any]
    yaml: TaskYaml
    of_library: bool = False
