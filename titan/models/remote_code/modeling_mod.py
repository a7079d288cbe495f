"""Mixture-of-Depths (Raposo et al. 2024, arXiv:2404.02258) on Qwen2.5: every so many layers one is routed.

While training the tokens with the highest scores of a row were computed, which looks ahead. That choice was learned,
and is made here, by a causal router from the token and the one before it, or by a predictor from the token alone.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config

from .routed_decoder import DenseLayer, RoutedForCausalLM, RoutedLayer, pair_logits
from .routed_tokens import RoutedCacheLayer, Tokens


class ModConfig(Qwen2Config):
    """A Qwen2.5's, which of its layers are routed, of every ``route_every`` the last, and what chooses their tokens:
    a ``causal_router`` that looks at the ``previous`` token too, or the predictor, mod's ``own``.
    """

    model_type = "titanflow_mod"

    route_every: int = 2
    causal_router: str = "previous"


class Predictor(nn.Module):
    """Predicts the router's choice from the token alone: a hidden layer of half the width, and a logit."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim // 2)
        self.score = nn.Linear(dim // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, tokens]`` of ``[batch, tokens, dim]``; no gradient reaches ``x``."""
        return self.score(F.silu(self.down(x.detach()))).squeeze(-1)


class ModLayer(RoutedLayer):
    """Computes the tokens that the router is expected to choose: ``x + σ(router · x) · f(x)``."""

    def __init__(self, config: ModConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.router = nn.Linear(config.hidden_size, 1, bias=False)
        is_own = config.causal_router == "own"
        self.predictor = Predictor(config.hidden_size) if is_own else None
        self.causal_router = None if is_own else nn.Linear(2 * config.hidden_size, 1)

    def choose(
        self, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer, *told: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From each token and the one before it, or from each alone."""
        if self.causal_router is None:
            logits = self.predictor(x)
        else:
            logits = pair_logits(self.causal_router, x.detach(), tokens, kept)
        return logits > 0, torch.sigmoid(self.router(x).squeeze(-1).float())


class ModForCausalLM(RoutedForCausalLM):
    """The language model."""

    config_class = ModConfig
    _no_split_modules = ["DenseLayer", "ModLayer"]  # noqa: RUF012  (as transformers declares it)

    @staticmethod
    def build_layer(config: ModConfig, index: int) -> nn.Module:
        """A routed layer, or a dense one."""
        return (ModLayer if (index + 1) % config.route_every == 0 else DenseLayer)(config, index)
