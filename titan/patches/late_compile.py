"""Has torchtitan compile its kinds of attention once a model has them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from titan.patches.patch import Patch, PatchContext

if TYPE_CHECKING:
    from torch import nn

MODULE = "torchtitan.models.attention"
MASKS = "_compiled_create_block_mask"
AttentionMade = Callable[..., None]


def needed() -> bool:
    """Whether the module would still be imported, by which the compiler would be."""
    return MODULE not in sys.modules


def apply(context: PatchContext) -> None:
    """Imports the module while ``torch.compile`` only keeps what it is given."""
    import torch

    if not needed():
        return
    compile_now = torch.compile
    torch.compile = partial(partial, compile_now)
    try:
        attention = importlib.import_module(MODULE)
    finally:
        torch.compile = compile_now
    for wrapper in (attention.FlexAttentionWrapper, attention.VarlenAttentionWrapper):
        wrapper.__init__ = _compiling(wrapper)
    later = getattr(attention, MASKS)

    def create_block_mask(*args: Any, **kwargs: Any) -> Any:
        compiled = later()
        setattr(attention, MASKS, compiled)
        return compiled(*args, **kwargs)

    setattr(attention, MASKS, create_block_mask)


def _compiling(wrapper: type[nn.Module]) -> AttentionMade:
    """The wrapper's constructor, which first compiles what the class still keeps to be compiled."""
    construct = wrapper.__init__

    def construct_compiled(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        for name, value in list(vars(wrapper).items()):
            if isinstance(value, partial):
                setattr(wrapper, name, value())
        construct(self, *args, **kwargs)

    return construct_compiled


PATCH = Patch(
    name="late_compile",
    target="torchtitan.models.attention, its calls of torch.compile",
    what="the same calls, made as the first model with such an attention is built",
    why=(
        "torch.compile imports torch's whole compiler, and torchtitan calls it three times as it is imported: more "
        "than a second of each training that compiles nothing"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
