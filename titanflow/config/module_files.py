"""Reads config files with what they extend, and merges those of a module with its overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.home import expanded
from titanflow.config.files.tree import ConfigTree, is_file
from titanflow.config.ignored import Ignored
from titanflow.files.interpolation import interpolate
from titanflow.files.toml_source import read_toml
from titanflow.files.yaml_source import Leaf, Tree, display, first_origin, in_one_line, merge, read_tree, remade

DATA = ("data", "validation_data")
"""The sections that a data file may be."""


@dataclass(frozen=True)
class Entry:
    """One entry of an experiment's ``modules``: as written, the settings over it, and what all modules share."""

    name: str
    spec: Tree
    settings: Tree
    launcher: Tree
    ignored: Ignored

    @property
    def key(self) -> str:
        return f"modules.{self.name}"


@dataclass
class ModuleFiles:
    """What the files of a module say: ``tree`` is all of them with the experiment's overrides, without defaults.

    ``named`` has the path of each file with the origin of its name; ``warnings`` say where one is taken that nobody
    named. ``unread`` are the mistakes that keep a file from being read, ``problems`` those in one that was read.
    """

    tree: Tree
    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)

    def stem(self, name: str) -> Leaf:
        """The name of a file without its folder and its suffix."""
        path, origin = self.named[name]
        return Leaf(Path(path).stem, origin)

    def read(self, find: Callable[[], Path], name: str = "", origin: str = "") -> Tree | None:
        """The content of a file that ``name`` names; None if it can't be read: the next may have mistakes, too."""
        try:
            path = find()
            if name:
                self.named[name] = (display(path), origin)
            tree, problems = load(path)
        except ConfigError as error:
            self.unread += error.problems
            return None
        self.problems += problems
        return tree


def merge_files(entry: Entry, configs: ConfigTree, stage: str, framework: str) -> ModuleFiles:
    """Reads the files of an entry, and merges them with what the experiment and its settings say."""
    files = ModuleFiles({"launcher": entry.launcher} if entry.launcher and stage != "publish" else {})
    _lay_over(files, _module_file(files, entry, configs, stage, framework))
    model = entry.spec.get("model")
    if isinstance(model, Leaf) and model.value is not None:
        find = partial(configs.file, "models", model, f"{entry.key}.model", framework)
        _lay_over(files, files.read(find, "model", model.origin))
    _lay_over(files, {"model": model} if isinstance(model, dict) else None)
    for name in DATA:
        data = entry.spec.get(name)
        if isinstance(data, Leaf) and data.value is not None:
            content = files.read(partial(configs.file, "data", data, f"{entry.key}.{name}"), name, data.origin)
            data = None if content is None else {"name": files.stem(name), **content}
        if isinstance(data, dict):
            files.tree = {**files.tree, name: data}
    _lay_over(files, entry.spec.get("overrides"))
    _lay_over(files, entry.settings)
    for name in DATA:
        _read_mixture(files, files.tree.get(name), f"{entry.name}.{name}", configs)
    return files


def _lay_over(files: ModuleFiles, over: Leaf | Tree | None) -> None:
    if isinstance(over, dict):
        files.tree = merge(files.tree, over)


def _module_file(files: ModuleFiles, entry: Entry, configs: ConfigTree, stage: str, framework: str) -> Tree | None:
    """The module's file: the named one, none for null, or the stage's own where nothing is written."""
    config, key = entry.spec.get("config"), f"{entry.key}.config"
    if isinstance(config, dict):
        hint = f"write the module's own settings under `overrides`: `{in_one_line({'overrides': config})}`"
        files.problems.append(Problem("found a mapping", key, first_origin(config), "the name of a module file", hint))
        return None
    if config is None:
        tree = files.read(partial(configs.stage_file, stage), "config", "default")
        if tree is not None:
            taken = files.named["config"][0]
            files.warnings.append(f"{key} isn't set, so {taken} is taken; `config: null` takes none")
        return tree
    if config.value is None:
        return None
    return files.read(partial(configs.file, "modules", config, key, framework), "config", config.origin)


def _read_mixture(files: ModuleFiles, data: Any, key: str, configs: ConfigTree) -> None:
    """Replaces, in a mixture's sources, the name of a data file by its content."""
    mixture = data.get("mixture") if isinstance(data, dict) else None
    sources = mixture.get("sources") if isinstance(mixture, dict) else None
    if not isinstance(sources, dict):
        return
    for name, source in sources.items():
        leaf = source.pop("data", None) if isinstance(source, dict) else None
        if isinstance(leaf, Leaf) and leaf.value is not None:
            content = files.read(partial(configs.file, "data", leaf, f"{key}.mixture.sources.{name}.data"))
            sources[name] = merge(content or {}, source)


def load(path: Path) -> tuple[Tree, list[Problem]]:
    """A config file laid over the files that it ``extends``, its ``${…}`` replaced, and the mistakes in these.

    Raises:
        ConfigError: one of the files can't be read, or they extend each other in a circle.
    """
    problems: list[Problem] = []
    return _replaced(_extended(path, ()), problems), problems


def _replaced(tree: Tree, problems: list[Problem]) -> Tree:
    """The tree with each reference replaced. Only a text has references, alone or in a list."""
    made: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            made[key] = _replaced(value, problems)
        elif isinstance(value.value, str | list | dict):
            made[key], found = interpolate(key, value)
            problems += found
        else:
            made[key] = value
    return remade(tree, made)


def _extended(path: Path, below: tuple[Path, ...]) -> Tree:
    path = path.resolve()
    tree = read_toml(path) if path.suffix == ".toml" else read_tree(path)
    extends = tree.pop("extends", None)
    if extends is None:
        return tree
    merged: Tree = {}
    for parent, origin in _parents(path, extends):
        if parent in (*below, path):
            cycle = " → ".join(display(file) for file in (*below, path, parent))
            raise ConfigError(Problem(f"a cycle: {cycle}", key="extends", origin=origin))
        if not is_file(parent):
            raise ConfigError(Problem(f"no such file: {display(parent)}", key="extends", origin=origin))
        merged = merge(merged, _extended(parent, (*below, path)))
    return merge(merged, tree)


def _parents(path: Path, extends: Leaf | Tree) -> Iterator[tuple[Path, str]]:
    value, origin = (extends.value, extends.origin) if isinstance(extends, Leaf) else (None, "")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(Problem("extends takes a list of files", key="extends", origin=display(path)))
    for name in names:
        yield (path.parent / expanded(name)).resolve(), origin
