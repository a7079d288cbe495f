"""Reads config files with what they extend, and merges those of a module with its overrides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.tree import ConfigTree, Room
from titanflow.config.ignored import Ignored
from titanflow.config.keys.experiment import BASE_KEYS
from titanflow.files.emptied_sections import emptied
from titanflow.files.interpolation import replaced
from titanflow.files.json_source import GIVEN, parse_tree
from titanflow.files.toml_source import read_toml
from titanflow.files.yaml_source import (
    BY_NAME,
    Leaf,
    Tree,
    display,
    first_origin,
    in_one_line,
    merge,
    plain,
    read_tree,
)
from titanflow.runs.contract import TRAINED, StageKind

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

    configs: ConfigTree
    tree: Tree
    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)

    def read(self, leaf: Any, room: Room, key: str, name: str) -> Tree | None:
        """The content of the file that ``leaf`` names, if any; None if it can't be read: the next may be wrong, too."""
        if not isinstance(leaf, Leaf) or leaf.value is None:
            return None
        try:
            path = room.file(leaf, key)
            self.named[name] = (display(path), leaf.origin)
            tree, problems = load(path, room)
        except ConfigError as error:
            self.unread += error.problems
            return None
        self.problems += problems
        return {"name": Leaf(path.stem, leaf.origin), **tree} if name in DATA else tree

    def lay_over(self, over: Leaf | Tree | None, null_clears: bool = False) -> None:
        """Merges a mapping into the tree, and leaves anything else out: the check of the entry refuses that."""
        if isinstance(over, dict):
            self.tree = merge(self.tree, over, null_clears)


def merge_files(entry: Entry, configs: ConfigTree, kind: StageKind, framework: str) -> ModuleFiles:
    """Reads the files of an entry, and merges them with what the experiment and its settings say."""
    launcher = {"launcher": entry.launcher} if entry.launcher and kind != "publish" else {}
    files, model = ModuleFiles(configs, launcher), entry.spec.get("model")
    files.lay_over(_module_file(files, entry, kind, framework))
    files.lay_over(files.read(model, configs.room("models", framework), f"{entry.key}.model", "model"))
    files.lay_over({"model": model} if isinstance(model, dict) else None)
    for name in DATA:
        section = entry.spec.get(name)
        if not isinstance(section, dict):
            section = files.read(section, configs.room("data"), f"{entry.key}.{name}", name)
        if section is not None:
            files.tree = {**files.tree, name: section}
    files.lay_over(entry.spec.get("overrides"))
    if kind in TRAINED:
        _lay_over_base(files, entry.spec, entry.key)
    files.problems += emptied(files.tree, entry.settings, f"{entry.name}.")
    files.lay_over(entry.settings, null_clears=True)
    for name in DATA:
        _read_mixture(files, name, entry.name)
    return files


def _lay_over_base(files: ModuleFiles, spec: Tree, place: str) -> None:
    """Takes the base from the entry, beside the names of its files; ``overrides`` is no second place for it."""
    overrides = spec.get("overrides")
    for key in BASE_KEYS:
        if isinstance(overrides, dict) and key in overrides:
            origin, hint = first_origin(overrides[key]), f"write it into {place}, beside `config` and `data`"
            files.problems.append(Problem("found a base", f"{place}.overrides.{key}", origin, f"{place}.{key}", hint))
        # The check of the entry refuses a value of another type.
        if key in spec and isinstance(plain(spec[key]), str | dict | None):
            files.tree = {**files.tree, key: spec[key]}


def _module_file(files: ModuleFiles, entry: Entry, kind: StageKind, framework: str) -> Tree | None:
    """The module's file: the named one, none for null, or the stage's own where nothing is written."""
    config, key, room = entry.spec.get("config"), f"{entry.key}.config", files.configs.room("modules", framework)
    if isinstance(config, dict):
        hint = f"write the module's own settings under `overrides`: `{in_one_line({'overrides': config})}`"
        files.problems.append(Problem("found a mapping", key, first_origin(config), "the name of a module file", hint))
    elif config is None:
        config = Leaf(f"{kind}.yaml", "default")
        path = room.file(config, key)
        files.warnings.append(f"{key} isn't set, so {display(path)} is taken; `config: null` takes none")
    return files.read(config, room, key, "config")


def _read_mixture(files: ModuleFiles, section: str, module: str) -> None:
    """Replaces, in a mixture's sources, the name of a data file by its content."""
    data = files.tree.get(section)
    mixture = data.get("mixture") if isinstance(data, dict) else None
    sources = mixture.get("sources") if isinstance(mixture, dict) else None
    if not isinstance(sources, dict):
        return
    for name, source in sources.items():
        named = source.pop("data", None) if isinstance(source, dict) else None
        key = f"{section}.mixture.sources.{name}.data"
        if (content := files.read(named, files.configs.room("data"), f"{module}.{key}", key)) is not None:
            sources[name] = merge(content, source)


def load(path: Path, room: Room) -> tuple[Tree, list[Problem]]:
    """A config file laid over the files that it ``extends``, its ``${…}`` replaced, and the mistakes in these.

    ``room`` is where such files lie.

    Raises:
        ConfigError: one of the files can't be read, or they extend each other in a circle.
    """
    problems: list[Problem] = []
    return replaced(_extended(path, room, ()), problems), problems


def load_json(text: str, room: Room) -> tuple[Tree, list[Problem]]:
    """The same of a config that stands in no file, but is JSON itself.

    Raises:
        ConfigError: it can't be read, or a file that it extends.
    """
    problems: list[Problem] = []
    return replaced(_over_parents(parse_tree(text), None, room, ()), problems), problems


def _extended(path: Path, room: Room, below: tuple[Path, ...]) -> Tree:
    path = path.resolve()
    tree = read_toml(path) if path.suffix == ".toml" else read_tree(path)
    return _over_parents(tree, path, room, (*below, path))


def _over_parents(tree: Tree, path: Path | None, room: Room, below: tuple[Path, ...]) -> Tree:
    """A tree, of the file ``path`` if any, over the files that it extends; ``below`` are those that led to them."""
    extends = tree.pop("extends", None)
    if extends is None:
        return tree
    merged: Tree = {}
    for leaf in _parents(path, extends):
        parent = room.file(leaf, "extends").resolve()
        if parent in below:
            cycle = " → ".join(display(file) for file in (*below, parent))
            raise ConfigError(Problem(f"a cycle: {cycle}", key="extends", origin=leaf.origin))
        merged = merge(merged, _extended(parent, room, below))
    return merge(merged, _leaving_out(tree, merged))


def _leaving_out(tree: Tree, below: Tree) -> Tree:
    """Takes the modules that a tree sets to null out of ``below``, which it extends, and out of the tree."""
    modules, extended = tree.get(BY_NAME), below.get(BY_NAME)
    if not isinstance(modules, dict) or not isinstance(extended, dict):
        return tree
    nothing = [name for name, one in modules.items() if isinstance(one, Leaf) and one.value is None]
    gone = [name for name in nothing if extended.pop(name, None) is not None]
    return {**tree, BY_NAME: {name: one for name, one in modules.items() if name not in gone}}


def _parents(path: Path | None, extends: Leaf | Tree) -> Iterator[Leaf]:
    """The names of the files that a config extends."""
    value, origin = (extends.value, extends.origin) if isinstance(extends, Leaf) else (None, "")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            Problem("takes a list of files", key="extends", origin=origin or (display(path) if path else GIVEN))
        )
    yield from (Leaf(name, origin, file=path) for name in names)
