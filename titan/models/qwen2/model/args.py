"""The arguments of a Qwen2.5 model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchtitan.config import JobConfig
from torchtitan.protocols.model import BaseModelArgs
from torchtitan.tools.logging import logger

from titan.models.flops import dense_parameters_and_flops


@dataclass
class Qwen2ModelArgs(BaseModelArgs):
    """Arguments of Qwen2.5 (arXiv:2412.15115), flat, so that any of them may be overridden from a config."""

    dim: int = 896
    n_layers: int = 24
    n_heads: int = 14
    n_kv_heads: int = 2
    vocab_size: int = 151936
    hidden_dim: int = 4864
    """Width of the feed-forward layer."""
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    max_seq_len: int = 32768
    dropout: float = 0.0
    """Share of the attention's weights, and of what each sublayer adds to the residual stream, dropped in training."""
    attn_type: str = "sdpa"
    attn_mask_type: str = "causal"
    enable_weight_tying: bool = False
    """Whether the output layer's weight is the embedding's."""

    def __post_init__(self) -> None:
        if self.dim % self.n_heads or (self.dim // self.n_heads) % 2:
            raise ValueError(f"dim={self.dim} is no even multiple of n_heads={self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads={self.n_heads} is no multiple of n_kv_heads={self.n_kv_heads}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    def update_from_config(self, job_config: JobConfig, **kwargs) -> None:
        """Takes the row length: RoPE is computed for that many positions."""
        seq_len = job_config.training.seq_len
        if seq_len > self.max_seq_len:
            logger.warning(f"Sequence length {seq_len} exceeds original maximum {self.max_seq_len}.")
        self.max_seq_len = seq_len

    def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
        return dense_parameters_and_flops(self, model, seq_len)
