"""DTF (arXiv:2511.21408, where it is called SDT) on Qwen2.5: pairs of a decision layer and a dynamic one.

The decision layer computes every token, and a small network, its prior, foresees the outcome. The dynamic layer
computes those tokens that changed much, or otherwise than foreseen: those that a causal router expects to have a high
score, by the token and the one before it, or those whose score is above a learned threshold.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.cache_utils import Cache
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from .routed_decoder import DenseLayer, RoutedForCausalLM, RoutedLayer, pair_logits
from .routed_tokens import RoutedCacheLayer, Tokens
from .surprise import SmallSwiGLU, SurpriseRouter, effective, mean_squared_difference


class DtfConfig(Qwen2Config):
    """A Qwen2.5's, the width of the priors by the model's, how many tokens a token's change is compared with, and what
    chooses tokens: a ``causal_router`` that looks at the ``previous`` token too, or the threshold, dtf's ``own``.
    """

    model_type = "titanflow_dtf"

    prior_factor: float = 0.0625
    moving_average_window: int = 100
    causal_router: str = "previous"


class DecisionLayer(DenseLayer):
    """Computes every token, and how much each changes and how much of that its prior didn't foresee."""

    def __init__(self, config: DtfConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.prior_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.prior = SmallSwiGLU(config.hidden_size, config.prior_factor)

    def forward(
        self,
        x: torch.Tensor,
        tokens: Tokens,
        *told: torch.Tensor,
        **cached: Cache | None,
    ) -> tuple[torch.Tensor, ...]:
        """``[batch, tokens, dim]`` to the same, and D_st and D_ch, fp32 ``[batch, tokens]``."""
        (post,) = super().forward(x, tokens, **cached)
        prior = x + self.prior(self.prior_norm(x))
        return post, mean_squared_difference(post, x), mean_squared_difference(post, prior)


class DtfRouter(SurpriseRouter):
    """Scores tokens with learned sharpness. Where it has a ``threshold``, those above are computed; ``slope`` was for
    training it.
    """

    def __init__(self, window: int, has_threshold: bool) -> None:
        super().__init__(window)
        for name in ("beta_ce", "beta_cu", *(("slope", "threshold") if has_threshold else ())):
            setattr(self, name, nn.Parameter(torch.zeros(1)))

    def forward(self, static: torch.Tensor, change: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The score of each token, fp32 ``[batch, tokens]``."""
        return self.surprise(static, change, effective(self.beta_ce), effective(self.beta_cu), positions).score


class DtfLayer(RoutedLayer):
    """Computes the tokens that surprised the decision layer before it, gated by their score."""

    def __init__(self, config: DtfConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        is_own = config.causal_router == "own"
        self.router = DtfRouter(config.moving_average_window, has_threshold=is_own)
        self.causal_router = None if is_own else nn.Linear(2 * config.hidden_size, 1)

    def choose(
        self, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer, static: torch.Tensor, change: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From how much these tokens and those before them changed, or from each and the one before it."""
        score = self.score(x, tokens, kept, static, change)
        if self.causal_router is None:
            return score > self.router.threshold.float(), score
        return pair_logits(self.causal_router, x.detach(), tokens, kept) > 0, score

    def score(
        self, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer, static: torch.Tensor, change: torch.Tensor
    ) -> torch.Tensor:
        """How surprising each token is beside those before it, fp32 ``[batch, tokens]``."""
        known = kept.add_signals("static", static, tokens)[:, -(static.shape[1] + self.router.window - 1) :]
        before = known.shape[1] - static.shape[1]
        positions = F.pad(tokens.positions, (before, 0))
        return self.router(known, F.pad(change, (before, 0)), positions)[:, before:]


class DtfForCausalLM(RoutedForCausalLM):
    """The language model."""

    config_class = DtfConfig
    _no_split_modules = ["DecisionLayer", "DtfLayer"]  # noqa: RUF012  (as transformers declares it)

    @staticmethod
    def build_layer(config: DtfConfig, index: int) -> nn.Module:
        """A decision layer for an even number, a dynamic one for an odd."""
        return (DtfLayer if index % 2 else DecisionLayer)(config, index)
