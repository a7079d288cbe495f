"""The tasks of lm-eval's own library, by name, without importing it.

lm-eval parses each of its 14,000 files to know their names, which takes six seconds or more. Here only the few lines
that name something are read, in a second, and the result is cached in the user's cache folder. The cache may be old:
the files are read again before a name counts as unknown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from titanflow.common.digests import digest
from titanflow.common.errors import ConfigError
from titanflow.common.files import write_text_atomically
from titanflow.evals.task_yaml import as_list, read_yaml
from titanflow.files.caches import cache_folder

PACKAGE = "lm_eval"
INDEX_VERSION = 1
"""Raise it whenever the same files would be indexed differently."""
KEYS = ("task", "group", "tag", "class", "include")
"""The keys that name a task or lead to one."""
IGNORED = ("__pycache__", ".ipynb_checkpoints")
"""The folders that lm-eval skips."""
_LINE = re.compile(rb"^[\"']?(task|group|tag|class|include)[\"']?[ \t]*:[ \t]*([^\r\n]*)", re.M)
_SIMPLE = re.compile(r"([\"']?)([^\s\"'\[\]{}#&*!|>%@`,]+)\1\s*(?:#.*)?")
_FLOW_OR_MERGED = re.compile(rb"\A\s*\{|^<<", re.M)


@dataclass
class Library:
    """The names in a folder of task files: tasks and groups with their file below ``root``, tags with their tasks.

    ``again`` has a second file that uses a name, which lm-eval ignores.
    """

    root: str
    tasks: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.tasks or name in self.groups or name in self.tags

    def __iter__(self) -> Iterator[str]:
        yield from (*self.tasks, *self.groups, *self.tags)

    def file(self, name: str) -> Path | None:
        found = self.tasks.get(name) or self.groups.get(name)
        return Path(self.root, found) if found else None


@cache
def installed_library() -> Library | None:
    """The library of the installed lm-eval, from the cache if possible; None if lm-eval isn't installed."""
    root = _root()
    if root is None:
        return None
    try:
        return Library(**json.loads(_cache_file(root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return read_again()


@cache
def read_again() -> Library | None:
    """The same from its files; updates the cache."""
    root = _root()
    if root is None:
        return None
    library = index(root)
    # If the cache can't be written, the next plan reads the files again.
    with suppress(OSError):
        write_text_atomically(_cache_file(root), json.dumps(asdict(library)))
    return library


def index(root: Path) -> Library:
    """The names in a folder of task files, by lm-eval's rules.

    A file's own keys override those of the files that it includes. If two files have one name, the first path counts.
    A file that isn't YAML may be listed, though lm-eval would ignore it.
    """
    library, read = Library(str(root)), _Names()
    for path in task_paths(root):
        found, file = read.of(path), path.relative_to(root).as_posix()
        is_group = "group" in found and "class" not in found
        name = found.get("group" if is_group else "task")
        if not isinstance(name, str):
            continue
        if name in library:
            library.again.setdefault(name, file)
        elif is_group:
            library.groups[name] = file
        else:
            library.tasks[name] = file
            for tag in map(str, as_list(found.get("tag"))):
                if library.file(tag) is None:
                    library.tags.setdefault(tag, []).append(name)
    return library


def task_paths(root: Path) -> list[Path]:
    """The task files below a folder, as lm-eval finds and sorts them."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in IGNORED]
        found += [Path(folder, name) for name in names if name.endswith(".yaml")]
    return sorted(found, key=Path.as_posix)


class _Names:
    """The lines of files that name something, included files' lines too; reads each file once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, path: Path) -> dict[str, Any]:
        """The :data:`KEYS` of a file; empty if it can't be read."""
        key = os.path.normpath(path)
        if key not in self._known:
            # Set first, because a file may include itself.
            self._known[key] = {}
            own = _own_names(Path(key))
            merged: dict[str, Any] = {}
            for included in as_list(own.get("include")):
                merged |= self.of(Path(key).parent / str(included))
            self._known[key] = merged | own
        return self._known[key]


def _own_names(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    found = {name.decode(): _value(rest) for name, rest in _LINE.findall(text)}
    # A group's ``task`` is a list. It is read only when the group is asked for.
    is_told = all(value is not None or (key == "task" and "group" in found) for key, value in found.items())
    if found and is_told and not _FLOW_OR_MERGED.search(text):
        return found
    try:
        config = read_yaml(path)
    except ConfigError:
        # The mistake is reported when someone asks for the task by name.
        return {key: value for key, value in found.items() if value is not None}
    return {key: config[key] for key in KEYS if key in config}


def _value(rest: bytes) -> str | None:
    """The value behind a key on its line; None if it takes a YAML parser."""
    simple = _SIMPLE.fullmatch(rest.decode("utf-8", "replace").strip())
    return simple[2] if simple else None


def package_folder() -> Path | None:
    """The folder of the installed lm-eval, found without importing it."""
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _root() -> Path | None:
    folder = package_folder()
    return folder / "tasks" if folder is not None and (folder / "tasks").is_dir() else None


def _cache_file(root: Path) -> Path:
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = ""
    return cache_folder() / f"lm_eval-tasks-{digest([INDEX_VERSION, installed, str(root)])}.json"
