"""Merges the files that a module of an experiment names, and its overrides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.tree import ConfigTree, load
from titanflow.config.ignored import Ignored
from titanflow.files.yaml_source import Leaf, Tree, display, first_origin, in_one_line, merge

if TYPE_CHECKING:
    from titanflow.config.module import Module


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


def merge_files(entry: Entry, tree: ConfigTree, module: Module, problems: list[Problem]) -> Tree:
    """A module's config from its files and the experiment, without defaults; mistakes go to ``problems``.

    The files go to ``module.named``; ``module.warnings`` says where one is taken that nobody named.
    """
    merged: Tree = {"launcher": entry.launcher} if entry.launcher and module.stage != "publish" else {}
    missing: list[Problem] = []
    with _gathered(missing):
        path = _module_file(entry, tree, module, problems)
        merged = merged if path is None else merge(merged, load(path, problems))
    model = entry.spec.get("model")
    if isinstance(model, dict):
        merged = merge(merged, {"model": model})
    elif isinstance(model, Leaf) and model.value is not None:
        with _gathered(missing):
            path = tree.file("models", model, f"{entry.key}.model", module.framework)
            module.named["model"] = (display(path), model.origin)
            merged = merge(merged, load(path, problems))
    for name in ("data", "validation_data"):
        with _gathered(missing):
            if (section := _data(entry, name, tree, module, problems)) is not None:
                merged = {**merged, name: section}
    overrides = entry.spec.get("overrides")
    if isinstance(overrides, dict):
        merged = merge(merged, overrides)
    merged = merge(merged, entry.settings)
    for name in ("data", "validation_data"):
        with _gathered(missing):
            _read_mixture(merged.get(name), f"{entry.name}.{name}", tree, problems)
    if missing:
        raise ConfigError(missing)
    return merged


@contextmanager
def _gathered(problems: list[Problem]) -> Iterator[None]:
    """Collects the problems of a file that can't be read and goes on: the next may have mistakes of its own."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems


def _module_file(entry: Entry, tree: ConfigTree, module: Module, problems: list[Problem]) -> Path | None:
    """The module's file: the named one, none for null, or the stage's own where nothing is written."""
    config, key = entry.spec.get("config"), f"{entry.key}.config"
    if isinstance(config, dict):
        hint = f"what this module sets itself stands under its overrides: `{in_one_line({'overrides': config})}`"
        problems.append(Problem("found a mapping", key, first_origin(config), "the name of a module file", hint))
        return None
    if config is None:
        path = tree.stage_file(module.stage)
        module.named["config"] = (display(path), "default")
        module.warnings.append(f"{key} isn't set, so {display(path)} is taken; `config: null` takes none")
        return path
    if config.value is None:
        return None
    path = tree.file("modules", config, key, module.framework)
    module.named["config"] = (display(path), config.origin)
    return path


def _data(entry: Entry, name: str, tree: ConfigTree, module: Module, problems: list[Problem]) -> Tree | None:
    """A data section: the content of a data file, named after the file, or the section in its place."""
    named = entry.spec.get(name)
    if isinstance(named, dict):
        return named
    if not isinstance(named, Leaf) or named.value is None:
        return None
    path = tree.file("data", named, f"{entry.key}.{name}")
    module.named[name] = (display(path), named.origin)
    return {"name": Leaf(path.stem, named.origin), **load(path, problems)}


def _read_mixture(data: Any, key: str, tree: ConfigTree, problems: list[Problem]) -> None:
    """Replaces, in a mixture's sources, the name of a data file by its content."""
    mixture = data.get("mixture") if isinstance(data, dict) else None
    sources = mixture.get("sources") if isinstance(mixture, dict) else None
    if not isinstance(sources, dict):
        return
    for name, source in sources.items():
        leaf = source.pop("data", None) if isinstance(source, dict) else None
        if isinstance(leaf, Leaf) and leaf.value is not None:
            path = tree.file("data", leaf, f"{key}.mixture.sources.{name}.data")
            sources[name] = merge(load(path, problems), source)
