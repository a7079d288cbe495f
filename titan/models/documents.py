"""Packed rows: documents that share a row but don't see each other.

torchtitan hands ``positions`` to its models for RoPE alone: its ``sdpa`` attention takes no mask, and its masks for
``flex`` and ``varlen`` end a document at each end-of-sequence token, which may stand inside a conversation. Here the
positions say where documents start, for each kind of attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.models.attention import (
    FlexAttentionWrapper,
    ScaledDotProductAttentionWrapper,
    VarlenAttentionWrapper,
    VarlenMetadata,
    create_attention_mask,
)
from torchtitan.protocols.model_converter import register_model_converter

from titan.models.attention import MaskedAttention, repeat_heads
from titanflow.architectures.families.registry import packing_refusals
from titanflow.common.errors import ConfigError, Problem

DOCUMENT_ATTENTION = "document_attention"
"""The model converter's name, as in ``model.converters``."""
DISTRIBUTED_ROPE = ("qwen3", "deepseek_v3")
"""The families whose RoPE cache is a ``DTensor`` under tensor parallelism, so their positions must be one too."""
POSITIONS = "positions"
"""The key of a batch's int64 ``[batch, seq_len]``, counting from 0 in each document."""
KINDS = ("sdpa", "flex", "varlen")
CALL = 64
"""Attention to one more document costs a CPU as much as a square of so many tokens, whatever the document's length
(``benchmarks/documents.py``)."""

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def one_document(tokens: torch.Tensor) -> torch.Tensor:
    """The positions of rows ``[batch, seq_len]`` that are one document each."""
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)


def document_starts(positions: torch.Tensor) -> torch.Tensor:
    """The column in which each token's document starts, shape ``[batch, seq_len]``."""
    return torch.arange(positions.shape[1], device=positions.device) - positions


def document_mask(positions: torch.Tensor) -> torch.Tensor:
    """Which key (last dimension) each query sees: bool ``[batch, 1, seq_len, seq_len]``, causal in each document."""
    columns = torch.arange(positions.shape[1], device=positions.device)
    is_causal = columns[:, None] >= columns[None, :]
    return (is_causal & (columns >= document_starts(positions)[..., None])).unsqueeze(1)


def document_mask_mod(positions: torch.Tensor) -> MaskMod:
    """:func:`document_mask` as FlexAttention wants it: a function of batch, head, query and key."""
    starts = document_starts(positions)

    def is_seen(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (query >= key) & (key >= starts[batch, query])

    return is_seen


def document_block_mask(positions: torch.Tensor) -> BlockMask:
    """:func:`document_mask` for FlexAttention, in blocks, so that empty ones cost nothing."""
    rows, seq_len = positions.shape
    return create_attention_mask(document_mask_mod(positions), rows, None, seq_len, seq_len, device=positions.device)


def document_boundaries(positions: torch.Tensor) -> VarlenMetadata:
    """Document starts in the batch laid out as one row, and the longest document's length, for varlen attention."""
    starts = (positions == 0).flatten().nonzero().flatten()
    boundaries = torch.cat([starts, starts.new_tensor([positions.numel()])]).to(torch.int32)
    longest = int(boundaries.diff().max())
    return VarlenMetadata(cu_seq_q=boundaries, cu_seq_k=boundaries, max_q=longest, max_k=longest)


def document_lengths(positions: torch.Tensor) -> list[int]:
    """The lengths of the documents in the batch laid out as one row; a row begins a document."""
    begins = positions == 0
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    lengths: list[int] = torch.diff(starts, append=starts.new_tensor([positions.numel()])).tolist()
    return lengths


class DocumentMask:
    """How a model's attention modules keep the current batch's documents apart.

    ``lengths`` are those of documents that are attended to one by one; else ``mask`` says which key a query sees. Both
    are None where each row is a document.
    """

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.lengths: list[int] | None = None

    def read(self, positions: torch.Tensor | None, one_by_one: bool) -> None:
        """Sets both for a batch's positions. Documents may be taken ``one_by_one`` only in a model that isn't compiled,
        since each batch has others."""
        self.mask, self.lengths = None, None
        if positions is None:
            return
        if one_by_one:
            lengths, (rows, seq_len) = document_lengths(positions), positions.shape
            if len(lengths) == rows:
                return
            if len(lengths) * CALL**2 + sum(length**2 for length in lengths) < rows * seq_len**2:
                self.lengths = lengths
                return
        self.mask = document_mask(positions)


class DocumentAttention(MaskedAttention):
    """Attention within the current batch's documents; no parameters, so the state dict's names don't change.

    Where a CPU attends to documents one by one, it computes nothing that a mask would hide: ten documents of a row cost
    ten small squares in place of a large one.

    Recomputed activations see the same mask: only the next forward pass replaces it, after the backward pass.
    """

    def __init__(self, documents: DocumentMask, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.documents = documents

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **settings: Any) -> torch.Tensor:
        """``q`` is ``[batch, heads, seq_len, head_dim]``; ``k`` and ``v`` may have fewer heads."""
        lengths = self.documents.lengths
        if lengths is None or isinstance(q, DTensor):
            return super().forward(q, k, v, **{**settings, "mask": self.documents.mask})
        (rows, heads, seq_len, _), attend = q.shape, super().forward
        settings = {**settings, "mask": None, "is_causal": True, "enable_gqa": False}
        # The projections' own layout has tokens before heads, so that all rows are one without a copy.
        rowed = (one.transpose(1, 2).flatten(0, 1)[None] for one in (q, repeat_heads(k, heads), repeat_heads(v, heads)))
        documents = zip(*(one.split(lengths, dim=1) for one in rowed), strict=True)
        attended = [attend(*(one.transpose(1, 2) for one in parts), **settings).transpose(1, 2) for parts in documents]
        return torch.cat(attended, dim=1).unflatten(1, (rows, seq_len))[0].transpose(1, 2)


class GroupedVarlenAttention(VarlenAttentionWrapper):
    """torchtitan's varlen attention for fewer key and value heads than query heads; no parameters.

    torchtitan 0.2.2 doesn't tell the kernel of them (``enable_gqa``), which then refuses.
    """

    def forward(
        self,
        xq: torch.Tensor,
        xk: torch.Tensor,
        xv: torch.Tensor,
        attention_masks: VarlenMetadata,
        scale: float | None = None,
    ) -> torch.Tensor:
        """``xq`` is ``[batch, heads, seq_len, head_dim]``; ``xk`` and ``xv`` may have fewer heads."""
        heads = xq.shape[1]
        return super().forward(xq, repeat_heads(xk, heads), repeat_heads(xv, heads), attention_masks, scale)


class DocumentConverter:
    """The model converter :data:`DOCUMENT_ATTENTION`, which keeps the documents of packed rows apart, in place.

    It refuses families and kinds of parallelism that can't.
    """

    def __init__(self, job_config: JobConfig, parallel_dims: ParallelDims) -> None:
        refusals = packing_refusals(job_config.model.name, parallel_dims.cp, parallel_dims.pp)
        if refusals:
            raise ConfigError([Problem(f"the rows are packed: {why}", key=key) for key, why in refusals.items()])
        shares_rope = parallel_dims.tp_enabled and job_config.model.name in DISTRIBUTED_ROPE
        self.rope_mesh = parallel_dims.get_mesh("tp") if shares_rope else None
        self.is_compiled = job_config.compile.enable and "model" in job_config.compile.components

    def convert(self, model: nn.Module) -> None:
        keep_documents_apart(model, self.rope_mesh, self.is_compiled)

    def post_optimizer_hook(self, model: nn.Module | list[nn.Module]) -> None:
        """Nothing to do."""


def keep_documents_apart(model: nn.Module, rope_mesh: DeviceMesh | None = None, is_compiled: bool = False) -> None:
    """Makes a model build its masks in each forward pass, from the ``positions`` that it is called with.

    Without positions each row is one document, whatever tokens are in it. A model with ``keeps_documents_apart`` does
    so by itself. ``rope_mesh`` is the mesh over which the RoPE cache is replicated as a ``DTensor``, if it is.
    """
    if getattr(model, "keeps_documents_apart", False):
        return
    kind = getattr(model.model_args, "attn_type", "sdpa")
    documents = DocumentMask()
    check_attention(model, kind)
    for module in list(model.modules()):
        attention = getattr(module, "inner_attention", None)
        if isinstance(attention, ScaledDotProductAttentionWrapper):
            dropout = attention.dropout.p if isinstance(attention, MaskedAttention) else 0.0
            module.inner_attention = DocumentAttention(documents, dropout).train(attention.training)
        elif isinstance(attention, VarlenAttentionWrapper):
            module.inner_attention = GroupedVarlenAttention()

    def set_mask(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        positions = kwargs.get(POSITIONS)
        if kind == "sdpa":
            documents.read(positions, one_by_one=args[0].device.type == "cpu" and not is_compiled)
        else:
            build = document_block_mask if kind == "flex" else document_boundaries
            masks = build(one_document(args[0]) if positions is None else positions)
            kwargs = {**kwargs, "attention_masks": masks}
        if positions is not None and rope_mesh is not None:
            kwargs = {**kwargs, POSITIONS: DTensor.from_local(positions, rope_mesh, [Replicate()], run_check=False)}
        return args, kwargs

    model.register_forward_pre_hook(set_mask, with_kwargs=True)
    model.keeps_documents_apart = True


def check_attention(model: nn.Module, kind: str) -> None:
    """Refuses a model with attention that isn't torchtitan's, or that takes no ``positions``."""
    wrappers = (ScaledDotProductAttentionWrapper, FlexAttentionWrapper, VarlenAttentionWrapper)
    attentions = [module for module in model.modules() if isinstance(module, wrappers)]
    if kind not in KINDS or not attentions or POSITIONS not in inspect.signature(model.forward).parameters:
        raise ConfigError(
            Problem(
                f"the rows are packed, and this model can't keep their documents apart: {type(model).__name__} with "
                f"attn_type {kind!r} and {len(attentions)} of torchtitan's attention modules",
                key="model.name",
                expected=f"attn_type {' or '.join(KINDS)}, and a forward pass that takes `positions`",
            )
        )


Inputs = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], dict[str, Any]]
"""What torchtitan's ``post_dataloading_process`` returns: inputs, labels, and keyword arguments of two kinds."""


def document_inputs(model: nn.Module, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> Inputs | None:
    """A batch for a model that makes its own masks; None for one that leaves them to torchtitan.

    Raises:
        ConfigError: the rows are packed, and the model would let their documents see each other.
    """
    extra_inputs = {name: value for name, value in input_dict.items() if name != "input"}
    if getattr(model, "keeps_documents_apart", False):
        return input_dict["input"], labels, extra_inputs, {}
    if POSITIONS in extra_inputs:
        raise ConfigError(
            Problem(
                "the rows are packed, and the model would let their documents see each other",
                key="model.converters",
                expected=f"{DOCUMENT_ATTENTION} among them, which data.packing adds",
            )
        )
    return None


register_model_converter(DocumentConverter, DOCUMENT_ATTENTION)
