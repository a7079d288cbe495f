"""The folder of configs: where its files are found, and how ``extends`` joins them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.home import expanded
from titanflow.files.interpolation import interpolate
from titanflow.files.toml_source import read_toml
from titanflow.files.yaml_source import Leaf, Tree, display, merge, read_tree

PACKAGED = Path(__file__).parents[2] / "configs"
CHECKOUT = Path(__file__).parents[3] / "configs"


@dataclass(frozen=True)
class ConfigTree:
    """A folder with ``experiments/``, ``modules/``, ``models/``, ``data/`` and ``evals/``.

    ``modules/`` and ``models/`` may have a folder per framework, as Primus's have.
    """

    root: Path

    @classmethod
    def locate(cls, configs: str | Path | None = None) -> ConfigTree:
        """The tree that is named, or ``./configs``, or the one that comes with the project.

        Raises:
            ConfigError: the named folder doesn't exist.
        """
        if configs is not None:
            folder = expanded(configs)
            if not folder.is_dir():
                raise ConfigError(Problem(f"no such folder: {configs}", key="--configs"))
            return cls(folder)
        candidates = [Path("configs"), PACKAGED, CHECKOUT]
        found = next((path for path in candidates if (path / "modules").is_dir()), PACKAGED)
        return cls(found)

    def experiment(self, name: str) -> Path:
        """The file of an experiment, given by its name or by a path.

        Raises:
            ConfigError: there is none; names the ones there are.
        """
        for path in (
            expanded(name),
            *(self.root / "experiments" / f"{name}{suffix}" for suffix in ("", ".yaml")),
        ):
            if _is_file(path):
                return path
        known = sorted(path.stem for path in (self.root / "experiments").glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            Problem(
                f"no experiment {name!r}",
                expected=f"a path, or one of {display(self.root / 'experiments')}: {', '.join(known) or 'none'}",
                hint=f"did you mean {near[0]}?" if near else "",
            )
        )

    def file(self, room: str, leaf: Leaf, key: str, framework: str | None = None) -> Path:
        """A file of ``modules/``, ``models/`` or ``data/`` that a config names; ``.yaml`` may be left out.

        The folder one stands in comes last.

        Raises:
            ConfigError: it isn't there; names the nearest that is.
        """
        name = str(leaf.value)
        folders = [self.root / room / framework] if framework else []
        folders.append(self.root / room)
        for folder in folders:
            for path in (folder / name, folder / f"{name}.yaml"):
                if _is_file(path):
                    return path
        if _is_file(itself := expanded(name)):
            return itself
        there = sorted({path.name for folder in folders for path in folder.glob("*.yaml")})
        near = difflib.get_close_matches(name, there, n=1) or difflib.get_close_matches(f"{name}.yaml", there, n=1)
        raise ConfigError(
            Problem(
                f"no file {name!r} in {' or '.join(display(folder) for folder in folders)}",
                key=key,
                origin=leaf.origin,
                hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(there[:12]) or 'none'}",
            )
        )

    def stage_file(self, stage: str) -> Path:
        """The module file of a stage's own name: this tree's, or where it has none the one that comes with the project.

        Raises:
            ConfigError: there is none.
        """
        candidates = [root / "modules" / f"{stage}.yaml" for root in (self.root, CHECKOUT, PACKAGED)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise ConfigError(Problem(f"no module file {stage}.yaml", expected=f"one in {display(self.root)}/modules"))
        return found


def _is_file(path: Path) -> bool:
    """Whether a file is there; no file has a name that no file system takes."""
    return os.path.isfile(path)  # noqa: PTH113  (Path's own is an error for a name too long for a file)


def load(path: Path, problems: list[Problem]) -> Tree:
    """A config file with what it ``extends`` below it and its ``${…}`` replaced.

    Raises:
        ConfigError: a file that isn't there or is neither YAML nor TOML, or a cycle.
    """
    return interpolate(_extended(path, ()), problems)


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
        if not _is_file(parent):
            raise ConfigError(Problem(f"no such file: {display(parent)}", key="extends", origin=origin))
        merged = merge(merged, _extended(parent, (*below, path)))
    return merge(merged, tree)


def _parents(path: Path, extends: Leaf | Tree) -> Iterator[tuple[Path, str]]:
    names = extends.value if isinstance(extends, Leaf) else None
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(Problem("extends takes a list of files", key="extends", origin=display(path)))
    for name in names:
        assert isinstance(extends, Leaf)
        yield (path.parent / expanded(name)).resolve(), extends.origin
