"""Where the files and folders lie that a config names: one rule for all of them.

Each is looked for beside the file that names it (beside a command line: in the working directory), then in the tree of
configs that the experiment lies in, then in the given tree, then in the one that comes with titanflow. The first one
found is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.common.files import expanded
from titanflow.config.keys.experiment import ExperimentSpec
from titanflow.files.yaml_source import Leaf, display, plain, read_tree

EXPERIMENTS = "experiments"
OF_EXPERIMENTS = {key.name for key in fields(ExperimentSpec)} - {"launcher"}
"""The keys that only an experiment's file has."""
SUFFIXES = (".yaml", ".yml", ".toml")
_IN_WHEEL = Path(__file__).parents[2] / "configs"
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[3] / "configs"
"""The tree that comes with titanflow: in the installed package, or in the clone."""
MOST_FILES = 50_000
"""Files in a folder that a config names: lm-eval's whole library has 14,000."""
SHOWN = 12
"""How many names of a folder a message shows."""


@dataclass(frozen=True)
class ConfigTree:
    """A folder with ``experiments/``, ``modules/`` and ``models/`` (perhaps by framework), ``data/``, ``evals/``.

    It needs only what differs from :data:`SHIPPED`. ``given`` is None where there is no other tree, ``own`` is the tree
    that the experiment lies in.
    """

    given: Path | None = None
    own: Path | None = None

    @classmethod
    def locate(cls, configs: str | Path | None = None) -> ConfigTree:
        """The named tree, or else ``./configs``.

        Raises:
            ConfigError: there is no such folder.
        """
        if configs is not None:
            folder = expanded(configs)
            if not folder.is_dir():
                raise ConfigError(Problem(f"no such folder: {configs}", key="--configs"))
            return cls(folder)
        here = Path("configs")
        # Other projects have a folder `configs`, too.
        is_tree = any((here / room).is_dir() for room in (EXPERIMENTS, "modules"))
        return cls(here if is_tree and not is_shipped(here) else None)

    def of_experiment(self, path: Path) -> ConfigTree:
        """With the tree that an experiment's file lies in, if any: its files go together."""
        folder = path.resolve().parent
        return replace(self, own=folder.parent if folder.name == EXPERIMENTS and not is_shipped(folder) else None)

    @property
    def roots(self) -> list[Path]:
        return _once(root for root in (self.own, self.given, SHIPPED) if root is not None)

    def room(self, name: str, framework: str | None = None) -> Room:
        """Where files of one kind lie, those of a framework before the others."""
        places: list[Path] = []
        for room in (root / name for root in self.roots):
            if framework and (room / framework).is_dir():
                places.append(room / framework)
            places.append(room)
        return Room(name, tuple(places))

    def experiment(self, name: str) -> Path:
        """The file of an experiment, given by its name or by a path.

        Raises:
            ConfigError: there is none.
        """
        room = self.room(EXPERIMENTS)
        if (path := room.found(Leaf(name, ""))) is not None:
            return path
        known = {place: _stems(place) for place in room.places}
        listed = [f"{display(place)}: {', '.join(names) or 'none'}" for place, names in known.items()]
        expected, looked = f"a path, or one of {'; '.join(listed)}", [Path(), *room.places]
        near = did_you_mean(name, [Path(file).stem for file in _files(looked)])
        raise ConfigError(Problem(f"no experiment {name!r}", expected=expected, hint=_other_kind(name, looked) or near))

    def experiment_names(self) -> list[str]:
        """All names by which :meth:`experiment` finds an experiment, those of the current folder first."""
        room = self.room(EXPERIMENTS)
        beside = [name for name in _stems(Path()) if room.has(Path(f"{name}.yaml"))]
        return list(dict.fromkeys([*beside, *(name for place in room.places for name in _stems(place))]))

    def folder(self, leaf: Leaf, key: str) -> Path:
        """A folder that a config names, such as its own evaluation tasks: of a tree itself, not of one of its rooms.

        Raises:
            ConfigError: there is none, or it holds so much that it is hardly such a folder.
        """
        name = str(leaf.value)
        places = _once([*_beside(leaf), *self.roots])
        # As in is_file.
        found = next((path for place in places if os.path.isdir(path := place / expanded(name))), None)  # noqa: PTH112
        if found is None:
            near = did_you_mean(name, [path.name for place in places for path in place.glob("*/")])
            hint = _other_kind(name, places) or near
            raise ConfigError(Problem(f"no such folder: {name}", key, leaf.origin, _expected("folder", places), hint))
        if _holds_more(found, MOST_FILES):
            message = f"{name} holds more than {MOST_FILES:,} files, and all of it is searched, and kept by each run"
            raise ConfigError(Problem(message, key, leaf.origin, "a folder of its own for what is looked for"))
        return found.resolve()


def _holds_more(folder: Path, most: int) -> bool:
    """Whether there are more files in a folder and those below it; it looks no further than it must."""
    seen = 0
    for _, folders, files in os.walk(folder):
        seen += len(folders) + len(files)
        if seen > most:
            return True
    return False


@dataclass(frozen=True)
class Room:
    """The folders of one kind of file, in the order in which they are looked through."""

    name: str
    places: tuple[Path, ...]

    def file(self, leaf: Leaf, key: str) -> Path:
        """The file that a config names; ``.yaml`` may be omitted.

        Raises:
            ConfigError: there is none; says where it was looked for.
        """
        if (path := self.found(leaf)) is not None:
            return path
        name, places = str(leaf.value), _once([*_beside(leaf), *self.places])
        beside, there = (_files(some) for some in (_beside(leaf), self.places))
        near = did_you_mean(name, [*there, *beside]) or did_you_mean(f"{name}.yaml", [*there, *beside])
        hint = _other_kind(name, places) or near or f"there are: {', '.join(there[:SHOWN]) or 'none'}"
        raise ConfigError(Problem(f"no file {name!r}", key, leaf.origin, _expected("file", places), hint))

    def found(self, leaf: Leaf) -> Path | None:
        """The first file of that name.

        A file is never the one that it names itself, so that a tree's ``pretrain.yaml`` may extend the shipped one. An
        experiment that lies beside is no module's, model's or data file: ``sft.yaml`` may name ``sft.yaml``. It is
        taken only where nothing else has the name.
        """
        paths = self._paths(leaf)
        return next((path for path in paths if self._is_of_kind(path, leaf)), paths[0] if paths else None)

    def has(self, path: Path) -> bool:
        """Whether a file of the current folder is of this room's kind."""
        return self._is_of_kind(path, Leaf(path.stem, ""))

    def _paths(self, leaf: Leaf) -> list[Path]:
        return [
            path
            for place in (*_beside(leaf), *self.places)
            for name in _names(str(leaf.value))
            if is_file(path := place / expanded(name)) and not (leaf.file and path.samefile(leaf.file))
        ]

    def _is_of_kind(self, path: Path, leaf: Leaf, below: tuple[Path, ...] = ()) -> bool:
        """Whether a file is of this room's kind, by its content if it lies beside and not in a room.

        ``below`` are the files that extend it.
        """
        folders = [place.resolve() for place in _beside(leaf)]
        if path.parent.resolve() not in folders or {*folders} & {place.resolve() for place in self.places}:
            return True
        if path.suffix not in SUFFIXES:
            return False
        if self.name == EXPERIMENTS and path.name == Path(str(leaf.value)).name:
            return True  # given by its path, not by its name
        try:
            tree = read_tree(path)
        except ConfigError:
            return True  # what reads it says what is wrong with it
        if self.name == EXPERIMENTS or tree.keys() & OF_EXPERIMENTS:
            return self.name == EXPERIMENTS and bool(tree.keys() & {*OF_EXPERIMENTS, "extends"})
        path, extends = path.resolve(), plain(tree.get("extends"))
        names = extends if isinstance(extends, list) else [extends] if isinstance(extends, str) else []
        higher = (Leaf(name, "", file=path) for name in names)
        return path in below or all(
            any(self._is_of_kind(one, leaf, (*below, path)) for one in self._paths(leaf)) for leaf in higher
        )


def is_shipped(path: Path) -> bool:
    """Whether a file comes with titanflow, so that each machine has it by its name; a link to such a file doesn't."""
    return (path.parent.resolve() / path.name).is_relative_to(SHIPPED.resolve())


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (Path's own is an error for a name too long for a file)


def _beside(leaf: Leaf) -> list[Path]:
    """The folder in which what a leaf names is looked for first; none for a default, which nobody wrote."""
    if leaf.origin == "default":
        return []
    return [leaf.file.parent if leaf.file else Path()]


def _names(name: str) -> tuple[str, ...]:
    return (name,) if name.endswith(SUFFIXES) else (f"{name}.yaml", name)


def _files(places: Iterable[Path]) -> list[str]:
    return list(dict.fromkeys(path.name for place in places for path in sorted(place.glob("*.yaml"))))


def _stems(place: Path) -> list[str]:
    return sorted(path.stem for path in place.glob("*.yaml"))


def _once(places: Iterable[Path]) -> list[Path]:
    seen: dict[Path, Path] = {}
    for place in places:
        seen.setdefault(place.resolve(), place)
    return list(seen.values())


def _expected(what: str, places: Iterable[Path]) -> str:
    shown = ["the current folder" if place == Path() else display(place) for place in places]
    return f"a {what} in {', then '.join(shown)}"


def _other_kind(name: str, places: Iterable[Path]) -> str:
    """What stands there under the name, if it is a folder in place of a file, or the reverse."""
    paths = [place / expanded(one) for place in places for one in _names(name)]
    # As in is_file.
    there = next((path for path in paths if os.path.exists(path)), None)  # noqa: PTH110
    if there is None:
        return ""
    kind = "a file" if is_file(there) else "a folder" if there.is_dir() else "neither a file nor a folder"
    return f"{display(there)} is {kind}"
