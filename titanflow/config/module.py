"""One resolved module of an experiment, and the schema of each stage's config."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import Problem
from titanflow.config.files.schema import Schema, dataclass_schema, inline, merge_schemas
from titanflow.config.keys import bounds
from titanflow.config.keys.after_training import Evaluate, Publish
from titanflow.config.keys.bounds import bounded
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.files.origins import is_written, origin_of
from titanflow.files.yaml_source import flatten
from titanflow.runs.contract import StageKind


@dataclass
class Module:
    """The settings that a stage will get.

    ``config`` is complete: every section and key, defaults included; ``origins`` says where each dotted key's value
    comes from. For a training module, ``model_overrides`` is flat, ``model_args`` holds the arguments that the model
    will be built with, and ``base`` is what it starts from, if not from random weights. ``named`` holds the framework
    and the files (paths to open) that its entry in the experiment names, each with its origin. ``origin`` is where the
    entry stands, for mistakes in what nobody wrote. ``chosen`` says what ``auto`` stands for and why, by the key.
    """

    name: str
    kind: StageKind
    framework: str
    config: dict[str, Any]
    origins: dict[str, str]
    model_overrides: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    base: BaseArchitecture | None = None
    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    origin: str = ""
    chosen: dict[str, str] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether torchtitan runs it."""
        return self.framework == "torchtitan"

    def value(self, key: str) -> Any:
        """The value of a dotted key of the config; None where a section lacks it, or is left empty."""
        section, _, name = key.partition(".")
        found = self.config.get(section)
        return (found or {}).get(name) if name else found

    def is_written(self, key: str) -> bool:
        """Whether someone wrote the key, so that its value isn't a default."""
        return is_written(self.origins, key)

    def problem(self, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
        """A mistake in one of its values, with the value's origin; a section's is that of its first written key."""
        return Problem(message, f"{self.name}.{key}", origin_of(self.origins, key) or self.origin, expected, hint)

    def placed(self, problems: Iterable[Problem]) -> list[Problem]:
        """Mistakes whose keys have no module yet, as this module's."""
        return [self.problem(one.key, one.message, one.expected, one.hint) for one in problems]

    def values(self) -> dict[str, tuple[Any, str]]:
        """Each dotted key with its value and origin, the model's arguments among them as ``model.<field>``."""
        flat = flatten(self.config) | {f"model.{key}": value for key, value in flatten(self.model_args).items()}
        return {key: (value, self.origins.get(key, "")) for key, value in flat.items()}


@cache
def stage_schema(kind: StageKind, read: Callable[[type], Schema] = dataclass_schema) -> Schema:
    """The schema of a kind of stage's config, with the bounds of its numbers.

    ``read`` makes the schema of a dataclass: that of :mod:`titanflow.config.keys.docs` has each key's text, and takes
    longer.
    """
    if kind == "publish":
        return bounded(read(Publish), bounds.PUBLISH)
    if kind == "evaluate":
        return bounded(read(Evaluate), bounds.EVALUATE)
    merged = merge_schemas(inline(load_snapshot()["job_config"]), read(TRAINING_SECTIONS))
    return bounded(merged, bounds.TRAINING)
