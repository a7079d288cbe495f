"""The base of all models with routed layers: a dense Qwen2.5 in which some layers choose their tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from titan.models.attention import MaskedAttention
from titan.models.documents import document_mask
from titan.models.qwen2.model.args import Qwen2ModelArgs
from titan.models.qwen2.model.model import Qwen2Model, TransformerBlock
from titan.models.routers import RoutedModel

from .auxiliary import attach_loss
from .routing import Selection


class AuxiliaryBlock(TransformerBlock):
    """A layer with auxiliary losses.

    Attributes:
        loss_share: the layer's weight in the mean over all layers with the same losses.
        auxiliary_scale: see :class:`~titan.models.routers.RoutedModel`.
        statistics: of the last training pass; 0-dimensional tensors.
    """

    def __init__(self, layer_id: int, args: Qwen2ModelArgs, loss_share: float) -> None:
        super().__init__(layer_id, args)
        self.loss_share = loss_share
        self.auxiliary_scale: float | None = None
        self.statistics: dict[str, torch.Tensor] = {}

    def with_losses(self, x: torch.Tensor, losses: Mapping[str, tuple[float, torch.Tensor]]) -> torch.Tensor:
        """Attaches weighted losses, each a sum over rows, to ``x``; each counts as the mean over its layers."""
        total = sum(weight * loss for weight, loss in losses.values())
        scale = 1 / x.shape[0] if self.auxiliary_scale is None else self.auxiliary_scale
        return attach_loss(x, total, scale * self.loss_share)


class RoutedBlock(AuxiliaryBlock):
    """A layer that computes only some tokens: in training ``share`` of each row's."""

    def __init__(self, layer_id: int, args: Qwen2ModelArgs, share: float, loss_share: float) -> None:
        super().__init__(layer_id, args, loss_share)
        if not isinstance(self.attention.inner_attention, MaskedAttention):
            raise ValueError(f"model.attn_type: found {args.attn_type!r}, and a routed layer's attention is sdpa")
        self.share = share

    def compute(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        selection: Selection,
        rope_cache: torch.Tensor,
        positions: torch.Tensor | None,
    ) -> torch.Tensor:
        """Adds the layer, times ``gate`` ``[batch, k]``, to the selected tokens; the others keep every bit."""
        if not selection.indices.shape[1]:
            return x
        delta = self.delta(x, selection, rope_cache, positions)
        return selection.put(x, selection.take(x) + gate.unsqueeze(-1).to(x.dtype) * delta)

    def delta(
        self, x: torch.Tensor, selection: Selection, rope_cache: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """What the layer adds to the selected tokens, ``[batch, k, dim]``; these see only each other.

        ``x`` ``[batch, seq_len, dim]`` and ``positions`` are of all tokens; None if each row is one document.
        """
        taken = selection.take(x)
        placed = selection.indices if positions is None else selection.take(positions)
        attended = self.attention(self.attention_norm(taken), rope_cache, selection.mask(positions), placed)
        attended = self.dropout(attended)
        return attended + self.dropout(self.feed_forward(self.ffn_norm(taken + attended)))


class DynamicModel(Qwen2Model, RoutedModel):
    """A Qwen2.5 with routed layers."""

    keeps_documents_apart = True
    """Masks are made here, because a routed layer's mask is of its own tokens."""

    def auxiliary_blocks(self) -> Iterator[AuxiliaryBlock]:
        """The layers with losses of their own, also if checkpointing or compilation wraps them."""
        return (module for module in self.modules() if isinstance(module, AuxiliaryBlock))

    def set_auxiliary_scale(self, scale: float) -> None:
        for block in self.auxiliary_blocks():
            block.auxiliary_scale = scale

    def router_statistics(self) -> Mapping[str, torch.Tensor]:
        return {
            f"layer_{block.layer_id}/{name}": value
            for block in self.auxiliary_blocks()
            for name, value in block.statistics.items()
        }

    def run_layers(
        self, h: torch.Tensor, attention_masks: torch.Tensor | None, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """Runs all layers; the dense ones get a mask, the routed ones make their own."""
        mask = attention_masks if positions is None else document_mask(positions)
        # Compiled layers need static shapes; in evaluation the number of selected tokens isn't known beforehand.
        with contextlib.nullcontext() if self.training else torch.compiler.set_stance("force_eager"):
            return self.run_blocks(h, mask, positions)

    def run_blocks(self, h: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor:
        return super().run_layers(h, mask, positions)
