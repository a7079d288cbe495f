"""The weights that a checkpoint stands for: a LoRA stage's holds what was trained, its base's holds the rest.

A base may itself be a LoRA stage, and so on down to a checkpoint that holds a whole model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from titan.weights.stored_weights import stored_model
from titanflow.architectures.huggingface import CONFIG_FILE, is_hugging_face
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.training import Lora
from titanflow.run.contract import RESULT_FILE
from titanflow.run.manifest import checkpoint_digest
from titanflow.run.training import Training


@dataclass(frozen=True)
class Adapter:
    """A LoRA stage's checkpoint, and how it was trained."""

    checkpoint: Path
    settings: Lora

    @cached_property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what the checkpoint holds of the model, by key."""
        return stored_model(self.checkpoint)


@dataclass(frozen=True)
class Weights:
    """A whole model, in a ``step-N`` folder or one that transformers loads, and its adapters, oldest first."""

    whole: Path
    adapters: tuple[Adapter, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The last trained part of them."""
        return self.adapters[-1].checkpoint if self.adapters else self.whole


def named_weights(path: Path) -> Weights:
    """The weights that a path stands for: a finished stage's folder, a ``step-N`` folder, or one that transformers
    loads.

    Raises:
        ConfigError: a LoRA stage's base isn't there any more, or isn't the one that it was trained on.
    """
    if is_hugging_face(path):
        return Weights(path)
    if (training := Training.of(path)) is not None and training.result is not None:
        return weights_of(training, training.result.checkpoint)
    return weights_of(Training.of(path.parent.parent), path)


def weights_of(training: Training | None, checkpoint: Path) -> Weights:
    """The weights that a stage's checkpoint stands for; one outside of a stage is a whole model.

    Raises:
        ConfigError: a LoRA stage's base isn't there any more, or isn't the one that it was trained on.
    """
    if training is None or not (settings := Lora.of(training.run.config)).rank:
        return Weights(checkpoint)
    below = weights_of(training.base, base_checkpoint(training))
    return Weights(below.whole, (*below.adapters, Adapter(checkpoint, settings)))


def base_checkpoint(training: Training) -> Path:
    """The checkpoint that a LoRA stage was started from.

    Raises:
        ConfigError: it isn't there any more, or its files have changed since the stage began.
    """
    run, checkpoint = training.run, None
    if run.base and is_hugging_face(run.base):
        checkpoint = run.base
    elif training.base and training.base.result:
        checkpoint = training.base.result.checkpoint
    if checkpoint is None:
        expected = f"the folder that it was trained on, with {RESULT_FILE} or {CONFIG_FILE}"
        raise ConfigError(Problem(f"the base of {run.folder} isn't there: {run.base}", "sft.base", expected=expected))
    if run.base_digest and checkpoint_digest(checkpoint) != run.base_digest:
        found = f"{checkpoint} isn't what {run.folder} was trained on: its files have changed"
        hint = "an adapter fits the weights that it was trained on, and no others: train it again"
        raise ConfigError(Problem(found, "sft.base", hint=hint))
    return checkpoint
