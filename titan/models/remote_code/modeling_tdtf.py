"""TDTF (arXiv:2511.21408, where it is called STT) on Qwen2.5: every second layer is routed, by a student.

While training a teacher computed the whole layer, and the tokens were chosen that changed much, or otherwise than a
transition network foresaw from the token before. The student learned that choice from the token and the one before,
and makes it here.
"""

import torch
from torch import nn
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from .routed_decoder import DenseLayer, RoutedForCausalLM, RoutedLayer, pair_logits
from .routed_tokens import RoutedCacheLayer, Tokens
from .surprise import SmallSwiGLU, SurpriseRouter


class TdtfConfig(Qwen2Config):
    """A Qwen2.5's, and what the teacher was made of: the width of the transition networks by the model's, and with how
    many tokens it compared a token's change.
    """

    model_type = "titanflow_tdtf"

    prior_factor: float = 0.0625
    moving_average_window: int = 100


class TdtfLayer(RoutedLayer):
    """Computes the tokens that its student chooses.

    ``transition`` and ``router`` were the teacher's. They are here so that the weights are whole.
    """

    def __init__(self, config: TdtfConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.transition_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.transition = SmallSwiGLU(config.hidden_size, config.prior_factor)
        self.router = SurpriseRouter(config.moving_average_window)
        self.student_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.student = nn.Linear(2 * config.hidden_size, 1)

    def choose(
        self, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer, *told: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From each token and the one before it."""
        logits = pair_logits(self.student, self.student_norm(x.detach()), tokens, kept)
        return logits > 0, torch.ones_like(logits)


class TdtfForCausalLM(RoutedForCausalLM):
    """The language model."""

    config_class = TdtfConfig
    _no_split_modules = ["DenseLayer", "TdtfLayer"]  # noqa: RUF012  (as transformers declares it)

    @staticmethod
    def build_layer(config: TdtfConfig, index: int) -> nn.Module:
        """A dense layer for an even number, a routed one for an odd."""
        return (TdtfLayer if index % 2 else DenseLayer)(config, index)
