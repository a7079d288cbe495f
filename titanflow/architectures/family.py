"""The record of a model family: all that is known of it without building a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from titanflow.architectures.blocks import Args, Shapes
from titanflow.architectures.config_reader import ConfigReader

Fault = tuple[tuple[str, ...], str, str]
"""Arguments that contradict each other, what was found, and what was expected."""


@dataclass(frozen=True)
class Family:
    """One family, in a file of its own below ``families/``.

    Attributes:
        name: torchtitan's name, as in ``model.name``.
        block: the weights of one layer, by the layer's number from 0.
        module: the module that registers one of this project's own families with torchtitan.
        architecture: transformers' class that computes the same; empty if there is no export.
        no_export: why there is no export.
        needed: the value that an argument must have for an export, and why.
        export_faults: what else keeps a model with experts from being exported.
        read_config: torchtitan's arguments from a ``config.json``; None if it can't be read.
        words: how a trained tokenizer splits text into words; empty for GPT-2's way.
        dense: the family whose weights it may begin with.
        groups: groups of parameters that ``optimizer.group_lr`` may give a learning rate, each by the names of its
            modules. Only families that route tokens have groups.
        is_routed: whether a layer computes only a share of the tokens.
        faults: arguments of the family that contradict each other.
        router_width: what a routed layer's router keeps of each token, in multiples of the model's width, as counted.
        decision_width: the same for a layer that decides for the next.
        has_teacher: whether a routed layer computes every token once more, forward only.
        own_masks: why attention can't be kept within the documents of a packed row; empty if it can.
        flex_only: whether attention is FlexAttention whatever ``attn_type`` says.
        joins_experts: whether files name each expert's weights, while transformers 5 has one tensor for all experts.
        own_loss: whether its loss isn't the cross-entropy of its output head's logits.
        own_router: whether transformers' router of experts isn't a plain linear layer.
        llama_cpp: llama.cpp's architecture that computes the same as the dense model; empty if none was proved.
        annealed: arguments between which a value moves over all of a training's steps.
        parts_width: whether the heads divide the model's width; otherwise a head has a width of its own.
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
    llama_cpp: str = ""
    parts_width: bool = False
    annealed: tuple[str, ...] = ()
    joins_experts: bool = False
    own_router: bool = False
    own_loss: bool = False
