"""An experiment's ``ignore:``: leaves keys of its files out and reports them; ``primus`` names a whole list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from titanflow.config.files.schema import Schema, known_keys
from titanflow.files.yaml_source import Leaf, Tree, above, first_origin


@dataclass(frozen=True)
class Ignored:
    """Keys to leave out where the schema lacks them, and by key the values that only another tool understands."""

    keys: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def unknown(self, schema: Schema, prefix: str = "") -> list[str]:
        """The keys that a schema lacks. They may be written with or without the module's name, the ``prefix``."""
        known = known_keys(schema) if self.keys else []
        return [dotted for key in self.keys if (dotted := key.removeprefix(prefix)) not in known]


NAMED: Mapping[str, Ignored] = {
    "primus": Ignored(
        keys=("platform", "trainable", "sink_level", "file_sink_level", "stderr_sink_level", "primus_turbo"),
        values={
            "model.converters": ("primus_turbo",),
            "experimental.custom_args_module": ("primus.backends.torchtitan.primus_turbo_extensions.config_extension",),
        },
    ),
}
"""Lists by name. Primus: its loggers and platforms, whether a module trains, and AMD's kernels (Primus-Turbo): the
section that sets them, the converter that puts them in, and the module that declares the section."""


def read_ignored(experiment: Tree) -> Ignored:
    """The experiment's ``ignore:``, a list's name or a list of names and dotted keys."""
    keys: dict[str, None] = {}
    values: dict[str, tuple[str, ...]] = {}
    for word in _words(experiment):
        one = NAMED.get(word, Ignored((word,)))
        keys |= dict.fromkeys(one.keys)
        values |= {key: (*values.get(key, ()), *found) for key, found in one.values.items()}
    return Ignored(tuple(keys), values)


def idle_names(experiment: Tree, removed: Iterable[str]) -> list[str]:
    """A warning for each key of ``ignore:`` that left nothing out; ``removed`` is all that was left out."""
    keys = {line.partition(" ")[0] for line in removed}
    leaf = experiment.get("ignore")
    return [
        f"ignore: {word} ({first_origin(leaf)}) leaves nothing out: no file has this key, or titanflow reads it"
        for word in _words(experiment)
        if word not in NAMED and not any(key == word or key.endswith(f".{word}") for key in keys)
    ]


def _words(experiment: Tree) -> list[str]:
    leaf = experiment.get("ignore")
    written = leaf.value if isinstance(leaf, Leaf) else None
    words = [written] if isinstance(written, str) else written if isinstance(written, list) else []
    return [_short(str(word)) for word in words]


def _short(word: str) -> str:
    """A key as it is known, ``sft.x``, which may be written as a file has it: ``modules.sft.overrides.x``."""
    module, _, key = word.removeprefix("modules.").removeprefix("overrides.").partition(".")
    return f"{module}.{key.removeprefix('overrides.')}" if key else module


def remove_values(tree: Tree, ignored: Ignored, module: str) -> list[str]:
    """Takes the ignored values out of ``tree``, of a list only those items; returns ``key: value (origin)`` of each."""
    removed = []
    for dotted, values in ignored.values.items():
        section, last = above(tree, dotted)
        leaf = section.get(last)
        found = leaf.value if isinstance(leaf, Leaf) else None
        taken = [one for one in (found if isinstance(found, list) else [found]) if one in values]
        if not taken:
            continue
        assert isinstance(leaf, Leaf)
        if isinstance(found, list):
            rest = [one for one in found if one not in values]
            section[last] = Leaf(rest, f"{leaf.origin}, without {', '.join(taken)}")
        else:
            del section[last]
        removed += [f"{module}.{dotted}: {one} ({leaf.origin})" for one in taken]
    return removed
