"""Turns a transformers ``config.json`` into torchtitan's arguments: the inverse of :mod:`titan.export.files`.

Each argument of torchtitan's model is set. A setting that torchtitan would compute differently is refused by name:
weights that fit don't show which function they were trained in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from titanflow.architectures.config_reader import ConfigReader
from titanflow.architectures.families.registry import ARCHITECTURES, FAMILIES
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import ConfigError, Problem

SHAPE = ("dim", "n_layers", "n_heads", "vocab_size")
"""A flavor is recognised by these. Which one it is changes nothing, since every argument is laid over it."""

EXPECTED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "quantization_config": None,
}
"""Settings of transformers that torchtitan computes only with these values, which are the defaults."""

READERS = {family.name: family.read_config for family in FAMILIES.values() if family.read_config}
"""The families whose ``config.json`` can be read."""


class UnreadArchitectureError(ConfigError):
    """A model whose ``config.json`` can't be read here; torchtitan's own adapter may still read its weights."""


def read_architecture(config: Mapping[str, Any], origin: str) -> tuple[str, str, dict[str, Any]]:
    """torchtitan's family, a flavor of it and the complete arguments of its model.

    ``config`` is as transformers 4 or 5 writes it, ``origin`` the file's path for messages.

    Raises:
        UnreadArchitectureError: a model that brings code, or another architecture.
        ConfigError: a key that is missing, or a model that torchtitan doesn't compute; every reason is named.
    """
    known = ", ".join(ARCHITECTURES[family] for family in READERS)
    if config.get("auto_map"):
        expected = f"a model that transformers knows: {known}"
        hint = "to fine-tune what a run of yours trained, name the folder of its stage, not the export in it"
        found = "the model brings code of its own, which is not run"
        raise UnreadArchitectureError(Problem(found, "auto_map", origin, expected, hint))
    named = (config.get("architectures") or [None])[0]
    family = next((family for family in READERS if ARCHITECTURES[family] == named), None)
    if family is None:
        raise UnreadArchitectureError(Problem(f"found {named!r}", key="architectures", origin=origin, expected=known))
    reader = ConfigReader(config, origin)
    args = READERS[family](reader)
    for key, value in EXPECTED.items():
        if config.get(key, value) != value:
            reader.refuse(key, f"found {config[key]!r}: torchtitan's {family} doesn't support it", str(value))
    if reader.problems:
        raise ConfigError(reader.problems)
    flavors = load_snapshot()["models"][family]["flavors"]
    alike = (name for name, values in flavors.items() if all(values[key] == args[key] for key in SHAPE))
    flavor = next(alike, "debugmodel")
    return family, flavor, {**copy.deepcopy(flavors[flavor]), **args}
