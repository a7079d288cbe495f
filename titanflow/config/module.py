"""One module of an experiment, resolved: its files and overrides merged, checked and completed with defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import Problem
from titanflow.config.files.schema import (
    Schema,
    dataclass_schema,
    inline,
    merge_schemas,
)
from titanflow.config.keys import bounds
from titanflow.config.keys.after_training import Evaluate, Publish
from titanflow.config.keys.bounds import bounded
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.files.yaml_source import flatten

STAGE_OF = {
    "pretrain": "pretrain",
    "pre_trainer": "pretrain",
    "sft": "sft",
    "post_trainer": "sft",
    "evaluate": "evaluate",
    "publish": "publish",
}
"""The stage that a module is, by its name; Primus's names are known too."""


@dataclass
class Module:
    """What a stage will get.

    ``config`` is complete: every section and key, defaults included; ``origins`` says of each dotted key where
    its value comes from. For a training module ``model_overrides`` is flat and ``model_args`` the arguments
    that the model will be built with; ``base`` is what an sft starts from. ``named`` is what its entry in the
    experiment names: framework and files, each as one opens it and with where it's written.
    """

    name: str
    stage: str
    framework: str
    config: dict[str, Any]
    origins: dict[str, str]
    model_overrides: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    base: BaseArchitecture | None = None
    named: dict[str, tuple[str, str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether torchtitan runs it."""
        return self.framework == "torchtitan"

    def is_written(self, key: str) -> bool:
        """Whether someone wrote the key, rather than a default filling it in."""
        origin = self.origins.get(key, "default")
        return origin != "default" and not origin.startswith("torchtitan ")

    def problem(self, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
        """What is wrong with one of its values, with where that was written; of a section, where its first key was."""
        below = (name for name in self.origins if name.startswith(f"{key}.") and self.is_written(name))
        origin = self.origins.get(key) or self.origins.get(next(below, ""), "")
        return Problem(message, f"{self.name}.{key}", origin, expected, hint)

    def values(self) -> dict[str, tuple[Any, str]]:
        """Each dotted key with its value and origin, the model's arguments among them as ``model.<field>``."""
        flat = flatten(self.config) | {f"model.{key}": value for key, value in flatten(self.model_args).items()}
        return {key: (value, self.origins.get(key, "")) for key, value in flat.items()}


@cache
def stage_schema(stage: str) -> Schema:
    """What a stage's config may hold, each number within its bounds."""
    if stage == "publish":
        return dataclass_schema(Publish)
    if stage == "evaluate":
        return bounded(dataclass_schema(Evaluate), bounds.EVALUATE)
    merged = merge_schemas(inline(load_snapshot()["job_config"]), dataclass_schema(TRAINING_SECTIONS))
    return bounded(merged, bounds.TRAINING)
