"""Shipped configs with one edit each, and the judge of what becomes of them: a changed config, or an error.

An edit is what a hand or another tool does: a key left out, misspelt, twice, in another section; a value of another
type or in odd YAML; an odd environment, ``--set`` or flow parameter. The judge knows what a value comes to
from a table (:data:`edits.ODD`), and of a run's config nothing but which keys each line of a file has set.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.keys.experiment import BASE_KEYS
from titanflow.config.overrides import FILE_KEYS, parameter_settings, parse_settings
from titanflow.files.yaml_source import flatten

CONFIGS = Path(__file__).parent.parent.parent.parent / "configs"
ROOTS = (
    ("stdlib", ()),
    ("stdlib_nightly", ()),
    ("chain", ()),
    ("families", ()),
    ("families", ("pretrain.model=mod_10m.yaml",)),
    ("families", ("pretrain.model=dtf_10m.yaml",)),
    ("families", ("pretrain.model=tdtf_10m.yaml", "pretrain.data=hub_text.yaml", "pretrain.data.held_out.dev=0.01")),
    ("families", ("pretrain.model=qwen3_debugmodel.yaml", "pretrain.data=text_files.yaml")),
    ("families", ("pretrain.model=deepseek_v3_demo.yaml",)),
    ("stdlib", ("sft.config=sft_lora.yaml", "sft.data=chat_mixture.yaml")),
    ("stdlib", ("sft.data=instructions.yaml", "sft.validation_data=sharegpt_files.yaml")),
)
"""Experiments with the settings that bring further shipped files in."""

Pairs = list[list[Any]]
"""A mapping as pairs of a key and either a piece of YAML or such pairs; so that a key may stand twice."""
Keys = tuple[str, ...]


def read_pairs(text: str) -> Pairs:
    """A file's mappings, with each value as the piece of YAML that stands there."""

    def pairs(node: yaml.MappingNode) -> Pairs:
        return [[key.value, pairs(value) if isinstance(value, yaml.MappingNode) else piece(value)]
                for key, value in node.value]  # fmt: skip

    def piece(node: yaml.Node) -> str:
        raw = text[node.start_mark.index : node.end_mark.index]
        return json.dumps(yaml.safe_load(raw)) if "\n" in raw or isinstance(node, yaml.SequenceNode) else raw

    root = yaml.compose(text, yaml.SafeLoader)
    return pairs(root) if isinstance(root, yaml.MappingNode) else []


def lines(pairs: Pairs, above: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """Each line of the pairs as a file, with the key that it sets."""
    for key, value in pairs:
        head = f"{'  ' * len(above)}{key}:"
        if isinstance(value, list):
            yield (*above, key), head if value else f"{head} {{}}"
            yield from lines(value, (*above, key))
        else:
            yield (*above, key), f"{head} {value}"


@dataclass(frozen=True)
class Place:
    """A line of a file: its keys, and what it set in the resolved config (nothing where something stronger did)."""

    file: str
    keys: Keys
    sets: tuple[str, ...]
    is_section: bool


@dataclass(frozen=True)
class Mutant:
    """One edit of one root: files, settings and environment as they then are, and what may become of it.

    Of the resolved config ``sets`` names the keys that must then hold one of ``values``. ``same`` says that all else
    of the edit's effect is that of this other mutant; ``names`` are the words of which an error holds one.
    """

    what: str
    root: int
    names: tuple[str, ...]
    files: Mapping[str, Pairs] = field(default_factory=dict, repr=False)
    settings: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    values: tuple[Any, ...] | None = None
    is_error: bool = False
    may_hold: bool = False
    same: Mutant | None = None


class Corpus:
    """A copy of the shipped configs in a folder of its own, each value on a line of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        shutil.copytree(CONFIGS, self.folder, dirs_exist_ok=True)
        rooms = ("experiments", "modules", "models", "data")
        self.files = {
            str(path.relative_to(self.folder)): read_pairs(path.read_text(encoding="utf-8"))
            for room in rooms
            for path in sorted((self.folder / room).glob("*.yaml"))
        }
        for name, pairs in self.files.items():
            self.write(name, pairs)

    def write(self, name: str, pairs: Pairs) -> None:
        """Writes one file."""
        (self.folder / name).write_text("".join(f"{line}\n" for _, line in lines(pairs)), encoding="utf-8")

    def load(
        self, root: int, settings: tuple[str, ...] = (), parameters: Mapping[str, Any] | None = None
    ) -> Experiment:
        """Loads a root as the command does, and a flow where there are parameters."""
        name, own = ROOTS[root]
        path = self.folder / "experiments" / f"{name}.yaml"
        more = [*parse_settings([*own, *settings]), *parameter_settings(parameters or {})]
        return load_experiment(str(path), self.folder, more)

    @cached_property
    def originals(self) -> list[dict[str, Any]]:
        """What each root comes to without an edit."""
        return [resolved(self.load(root)) for root in range(len(ROOTS))]

    @cached_property
    def places(self) -> list[list[Place]]:
        """The lines of each root's files."""
        return [list(self._places(root)) for root in range(len(ROOTS))]

    def _places(self, root: int) -> Iterator[Place]:
        experiment = self.load(root)
        by_line: dict[str, list[str]] = {}
        for key, origin in experiment.origins.items():
            by_line.setdefault(origin.partition(" (")[0], []).append(key)
        for name, module in experiment.modules.items():
            for key, origin in module.origins.items():
                by_line.setdefault(origin.partition(" (")[0], []).append(f"{name}.{key}")
        read = {line.rpartition(":")[0] for line in by_line}
        for file, pairs in self.files.items():
            if str(self.folder / file) not in read:
                continue
            for number, (keys, line) in enumerate(lines(pairs), 1):
                sets = tuple(by_line.get(f"{self.folder / file}:{number}", ()))
                yield Place(file, keys, sets, line.endswith(":"))

    @cached_property
    def strongest(self) -> list[list[Place]]:
        """Of each root's lines those that no stronger layer overrules, and the sections that have such lines."""
        return [
            [place for place in places if place.sets or _has_effect(place, places) or self._names_file(root, place)]
            for root, places in enumerate(self.places)
        ]

    def _names_file(self, root: int, place: Place) -> bool:
        """Whether a line names a module's file, and no setting another."""
        _, settings = ROOTS[root]
        keys = place.keys[1:]
        is_named = place.keys[0] == "modules" and len(keys) == 2 and keys[1] in (*FILE_KEYS, *BASE_KEYS)
        return is_named and not any(setting.startswith(f"{'.'.join(keys)}=") for setting in settings)

    @cached_property
    def origins(self) -> list[dict[str, str]]:
        """Where each root's own keys were written."""
        return [self.load(root).origins for root in range(len(ROOTS))]

    def edited(self, place: Place) -> tuple[dict[str, Pairs], Pairs, int]:
        """A copy of a place's file to edit, the mapping in it that has the place, and its position there."""
        pairs = copy.deepcopy(self.files[place.file])
        mapping = self.mapping(pairs, place.keys[:-1])
        index = next(i for i, (name, _) in enumerate(mapping) if name == place.keys[-1])
        return {place.file: pairs}, mapping, index

    def mapping(self, pairs: Pairs, keys: Keys) -> Pairs:
        """The mapping that lies below some keys."""
        for key in keys:
            pairs = next(value for name, value in pairs if name == key)
        return pairs

    def outcome(self, mutant: Mutant) -> dict[str, Any] | str:
        """What a mutant comes to: its resolved config, or what the error says."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in mutant.environment.items():
                patch.setenv(name, value)
            try:
                for name, pairs in mutant.files.items():
                    self.write(name, pairs)
                return resolved(self.load(mutant.root, mutant.settings, mutant.parameters))
            except ConfigError as error:
                return str(error)
            finally:
                for name in mutant.files:
                    self.write(name, self.files[name])

    def judge(self, mutant: Mutant) -> None:
        """Fails where a mutant's edit has no effect and nobody says so, or another effect than its words."""
        found = self.outcome(mutant)
        if isinstance(found, str):
            assert any(name in found for name in mutant.names), f"the error names none of {mutant.names}: {found}"
            return
        assert not mutant.is_error, f"no error; changed: {differences(self.originals[mutant.root], found)}"
        if mutant.same is not None:
            other = self.outcome(mutant.same)
            assert not differences(other, found), f"differs from {mutant.same.what}: {differences(other, found)}"
            return
        if mutant.values is not None:
            for key in mutant.sets:
                assert any(holds(found, key, value) for value in mutant.values), f"{key} is {found.get(key)!r}"
        assert mutant.may_hold or found != self.originals[mutant.root], "without an effect, and without a word"


def _has_effect(section: Place, places: list[Place]) -> bool:
    above = len(section.keys)
    below = [one for one in places if one.file == section.file and one.keys[:above] == section.keys]
    return section.is_section and any(one.sets for one in below)


def resolved(experiment: Experiment) -> dict[str, Any]:
    """All that a config comes to, by dotted key."""
    spec = asdict(experiment.spec)
    spec.pop("modules")
    flat = flatten(spec) | {"exp_name": experiment.exp_name}
    for name, module in experiment.modules.items():
        flat |= {f"{name}.{key}": value for key, (value, _) in module.values().items()}
        flat |= {f"{name}.framework": module.framework, f"{name}.overrides": module.model_overrides}
    # What is left out by name is said.
    return flat | {"ignored": experiment.ignored}


def holds(found: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a key came to a value.

    A mapping's values have keys of their own, null leaves an empty mapping as it is and a part to its section, and an
    experiment has a name.
    """
    if value is None and (found.get(key) == {} or key.endswith(".part")):
        return True
    if key == "exp_name" and not value:
        return bool(found[key])
    if isinstance(value, dict) and value:
        return all(holds(found, f"{key}.{name}", item) for name, item in value.items())
    return is_same(found.get(key), value)


def is_same(found: Any, value: Any) -> bool:
    """Whether both are equal, of which a boolean equals booleans only, and a number as a float holds it.

    Null is an empty mapping, where a mapping stands.
    """
    if found == {} and value is None:
        return True
    if isinstance(found, float) and isinstance(value, int):
        value = float(value) if not isinstance(value, bool) else None
    return isinstance(found, bool) == isinstance(value, bool) and found == value


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Some of the keys in which two resolved configs differ, for a message; an empty section is as good as none."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return {} if one == other else {"": (one, other)}
    both = [{key: value for key, value in each.items() if value not in (None, {})} for each in (one, other)]
    differing = [key for key in sorted({*one, *other}) if both[0].get(key) != both[1].get(key)]
    return {key: (one.get(key), other.get(key)) for key in differing[:8]}
