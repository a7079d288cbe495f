"""A model family: all that is known of it here without building a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from titanflow.architectures.blocks import Args, Shapes
from titanflow.architectures.config_reader import ConfigReader

Fault = tuple[tuple[str, ...], str, str]
"""The arguments that it is about, what was found, and what was expected."""


@dataclass(frozen=True)
class Family:
    """One family, in a file of its own below ``families/``.

    Attributes:
        name: torchtitan's name, as in ``model.name``.
        block: the weights of one layer, by the layer's number from 0.
        module: of this project's own families, the module that registers it with torchtitan.
        architecture: the class for transformers that computes the same; empty where there is no export.
        no_export: why there is none.
        needed: what arguments have to be for an export, and what transformers' class computes that asks for it.
        export_faults: what else keeps a model with experts from being exported.
        read_config: torchtitan's arguments from a ``config.json``; None where it isn't understood.
        words: how a trained tokenizer parts text into words; empty for GPT-2's way.
        dense: the family whose weights it may begin with.
        groups: groups of parameters that ``optimizer.group_lr`` may give a learning rate, each by the names of its
            modules. A family that has some routes tokens.
        is_routed: whether a layer computes a share of the tokens alone.
        faults: arguments of its own that contradict each other.
        router_width: what a routed layer keeps of each token to choose by, in widths of the model, as it was counted.
        decision_width: the same of a layer that decides for the next.
        has_teacher: whether a routed layer computes every token once more, forward alone.
        own_masks: why its attention can't be kept within the documents of a packed row; empty where it can.
        flex_only: whether its attention is FlexAttention whatever ``attn_type`` says.
        joins_experts: whether each expert has names of its own in a file, and in transformers 5 all have one together.
        own_router: whether transformers' router of experts is no plain linear layer.
        parts_width: whether the model's width is parted into heads; others give a head a width of its own.
    """

    name: str
    block: Callable[[Args, int], Shapes] | None = None
    module: str = ""
    architecture: str = ""
    no_export: str = ""
    needed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    export_faults: Callable[[Args], Iterable[str]] = lambda args: ()
    read_config: Callable[[ConfigReader], dict[str, Any]] | None = None
    words: str = ""
    dense: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_routed: Callable[[Args, int], bool] = lambda args, layer: False
    faults: Callable[[Args], Iterable[Fault]] = lambda args: ()
    router_width: int = 0
    decision_width: int = 0
    has_teacher: bool = False
    own_masks: str = ""
    flex_only: bool = False
    parts_width: bool = False
    joins_experts: bool = False
    own_router: bool = False
