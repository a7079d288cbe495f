"""Output head and loss, one part of a batch's tokens after the other, so that the logits are never there as a whole.

A model converter of torchtitan makes the head compute the loss itself where the model is called with ``labels``. It
keeps its name, weights and parallel plan, and its weights are gathered there, so that each kind of parallelism, tied
embeddings and adapters work as they do for logits. torch's own ``linear_cross_entropy`` takes no ``DTensor`` and no
adapter, and torch 2.11 doesn't have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchtitan.components.loss import IGNORE_INDEX, build_cross_entropy_loss
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.protocols.model_converter import register_model_converter

from titan.models.documents import Inputs
from titanflow.common.errors import ConfigError, Problem

CHUNKED_LOSS, CHUNKED_TOKEN_LOSSES = "chunked_loss", "chunked_token_losses"
"""The names of the model converters, as in ``model.converters``."""
KEY = "training.loss_chunks"
LABELS = "labels"
"""The name by which a model with a chunked head is given its labels; its own forward pass never sees them."""

PartLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The loss of some tokens, of hidden states ``[tokens, dim]`` and labels ``[tokens]``."""


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each token, float32 ``[rows, tokens]``, and 0 where the label is -100.

    ``logits`` are ``[rows, tokens, vocabulary]``, ``labels`` ``[rows, tokens]``.
    """
    flat = logits.flatten(0, 1).float()
    losses = functional.cross_entropy(flat, labels.flatten(), reduction="none", ignore_index=IGNORE_INDEX)
    return losses.view(labels.shape)


def summed(losses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss, ``[]``, of what a chunked head returned; a loss function of torchtitan's form."""
    return (losses.full_tensor() if isinstance(losses, DTensor) else losses).sum()


class SummedLoss(torch.autograd.Function):
    """The summed loss of all tokens, whose gradients are computed with it, while a part's logits are there.

    The gradients of the head's parameters are added up in float32, and multiplied in the backward pass by the one
    number that the sum's gradient is.
    """

    @staticmethod
    def forward(
        ctx: Any, loss: PartLoss, size: int, hidden: torch.Tensor, labels: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        """The loss, ``[1]``, of ``hidden`` ``[tokens, dim]`` in parts of ``size`` tokens."""
        total: Any = 0.0
        of_hidden, of_parameters = list[torch.Tensor](), list[torch.Tensor]()
        for part, own_labels in zip(hidden.split(size), labels.split(size), strict=True):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                part_loss = loss(part, own_labels)
            gradient, *others = torch.autograd.grad(part_loss, [part, *parameters])
            total = total + part_loss.detach()
            of_hidden.append(gradient)
            if of_parameters:
                for one, other in zip(of_parameters, others, strict=True):
                    one += other
            else:
                of_parameters = [other.float() for other in others]
        ctx.gradients = [torch.cat(of_hidden), *of_parameters]
        ctx.types = [hidden.dtype, *(one.dtype for one in parameters)]
        return total.reshape(1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the chunked loss has one backward pass, which uses up its gradients")
        scaled = [one.mul_(gradient).to(dtype) for one, dtype in zip(gradients, ctx.types, strict=True)]
        return None, None, scaled[0], None, *scaled[1:]


class ChunkedHead(nn.Module):
    """Mixed into the class of a model's output head: with labels it returns losses in place of logits.

    Attributes:
        chunks: the number of parts that a batch's tokens are cut into.
        sum_loss: torchtitan's loss function, which sums; None where the loss of each token is wanted.
        labels: of the batch that comes next, ``[rows, tokens]``; None where logits are wanted.
    """

    chunks: int
    sum_loss: PartLoss | None
    labels: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits ``[rows, tokens, vocabulary]``; with labels the summed loss ``[1]``, or each token's."""
        if self.labels is None:
            return super().forward(input)
        hidden, labels = input.flatten(0, 1), self.labels.flatten().to(input.device)
        size = -(-len(labels) // self.chunks)
        if self.sum_loss is None:
            pieces = zip(hidden.split(size), labels.split(size), strict=True)
            losses = [checkpoint(self._losses, *piece, use_reentrant=False) for piece in pieces]
            return torch.cat(losses).view(self.labels.shape)
        if not torch.is_grad_enabled():
            pieces = zip(hidden.split(size), labels.split(size), strict=True)
            return sum(self._sum(*piece) for piece in pieces).reshape(1)
        trained = (one for one in self.parameters() if one.requires_grad)
        return SummedLoss.apply(self._sum, size, hidden, labels, *trained)

    def _sum(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert self.sum_loss is not None
        return self.sum_loss(super().forward(hidden).unsqueeze(0), labels.unsqueeze(0))

    def _losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return token_losses(super().forward(hidden).unsqueeze(0), labels.unsqueeze(0)).flatten()


class ChunkedLossConverter:
    """The model converter :data:`CHUNKED_LOSS`: it has ``training.loss_chunks`` parts.

    It refuses a model without an ``output`` that is a linear layer.
    """

    def __init__(self, job_config: JobConfig, parallel_dims: ParallelDims) -> None:
        self.chunks = job_config.training.loss_chunks
        self.sum_loss = build_cross_entropy_loss(job_config)

    def convert(self, model: nn.Module) -> None:
        chunk_head(model, self.chunks, self.sum_loss)

    def post_optimizer_hook(self, model: nn.Module | list[nn.Module]) -> None:
        """Nothing to do."""


class ChunkedTokenLossesConverter(ChunkedLossConverter):
    """The converter :data:`CHUNKED_TOKEN_LOSSES`, for a loss that is made of each token's, such as that of pairs."""

    def __init__(self, job_config: JobConfig, parallel_dims: ParallelDims) -> None:
        self.chunks, self.sum_loss = job_config.training.loss_chunks, None


def chunk_head(model: nn.Module, chunks: int, sum_loss: PartLoss | None) -> None:
    """Makes ``model.output`` a :class:`ChunkedHead`, and the model take ``labels``."""
    head = getattr(model, "output", None)
    if not isinstance(head, nn.Linear):
        found = f"found {chunks}, and {type(model).__name__} has no linear layer `output` to cut the loss at"
        raise ConfigError(Problem(found, KEY, expected="1"))
    # A class and no wrapper, so that its parameters keep their names, and plans still find a linear layer.
    head.__class__ = type(f"Chunked{type(head).__name__}", (ChunkedHead, type(head)), {})
    head.chunks, head.sum_loss, head.labels = chunks, sum_loss, None
    model.register_forward_pre_hook(_give_labels, with_kwargs=True)
    model.takes_labels = True


def _give_labels(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hands the labels to the head; the other parts of a pipeline have none."""
    if model.output is not None:
        model.output.labels = kwargs.get(LABELS)
    return args, {name: value for name, value in kwargs.items() if name != LABELS}


def with_labels(batch: Inputs, model: nn.Module) -> Inputs:
    """A batch whose labels also reach the model, or a part of it, if its head computes the loss."""
    inputs, labels, extra_inputs, extra_kwargs = batch
    if getattr(model, "takes_labels", False):
        extra_kwargs = {**extra_kwargs, LABELS: labels}
    return inputs, labels, extra_inputs, extra_kwargs


register_model_converter(ChunkedLossConverter, CHUNKED_LOSS)
register_model_converter(ChunkedTokenLossesConverter, CHUNKED_TOKEN_LOSSES)
