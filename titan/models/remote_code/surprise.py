"""How surprising a token is: by how much a layer changed it, and how well a small network had foreseen the change.

The scores of DTF and TDTF (arXiv:2511.21408, where they are called SDT and STT). Pure torch: this file also stands
beside the modelling files on the Hub.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

INIT_STD = 0.02
RAW_O_CE = 0.5806
"""Through softplus 1.025."""
RAW_M_CU = 0.6952
"""Through softplus 1.1."""
EPS = 1e-10


def small_width(dim: int, factor: float) -> int:
    """The width of a small network's hidden layer: ``dim · factor``, rounded up to an even number."""
    width = math.ceil(dim * factor)
    return max(2, width + width % 2)


class SmallSwiGLU(nn.Module):
    """``down(silu(gate x) ⊙ up x)``, no biases: foresees what a layer will change."""

    def __init__(self, dim: int, factor: float) -> None:
        super().__init__()
        width = small_width(dim, factor)
        self.gate = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[…, dim]`` to ``[…, dim]``."""
        return self.down(F.silu(self.gate(x)) * self.up(x))

    def init_weights(self) -> None:
        """Draws the weights."""
        for linear in (self.gate, self.up, self.down):
            nn.init.normal_(linear.weight, std=INIT_STD)


def mean_squared_difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``‖one − other‖² / dim`` of ``[…, dim]``, in fp32: ``[…]``."""
    return (one.float() - other.float()).square().mean(-1)


def shifted(x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """At each token what ``x`` ``[batch, seq_len, dim]`` was at the token before; 0 where a document starts.

    Args:
        x: of all tokens.
        positions: of each token in its document, ``[batch, seq_len]``; None where each row is one document.
    """
    before = F.pad(x, (0, 0, 1, 0))[:, :-1]
    return before if positions is None else before.masked_fill((positions == 0).unsqueeze(-1), 0)


def moving_average(values: torch.Tensor, positions: torch.Tensor | None, window: int) -> torch.Tensor:
    """The mean of ``values`` ``[batch, seq_len]`` over each token and those before it in its document.

    Args:
        values: of all tokens.
        positions: of each token in its document, no more tokens than are known, wherever somebody has them begin; None
            where each row is one document.
        window: how many tokens at most; fewer where a document has just begun.
    """
    columns = torch.arange(values.shape[1], device=values.device)
    in_document = columns.expand(values.shape) if positions is None else torch.minimum(positions, columns)
    lengths = (in_document + 1).clamp(max=window)
    # The difference of two sums of a long row would lose in fp32 what distinguishes its last tokens.
    sums = F.pad(values.double().cumsum(1), (1, 0))
    in_window = sums[:, 1:] - sums.gather(1, columns + 1 - lengths)
    return (in_window / lengths).to(values.dtype)


@dataclass(frozen=True)
class Surprise:
    """How surprising each token is, fp32 ``[batch, seq_len]``, each between 0 and 1.

    ``expected`` (S_CE): the layer changed the token, and as was foreseen. ``unexpected`` (S_CU): it changed it more
    than those before it. ``score`` (G): either of the two.
    """

    expected: torch.Tensor
    unexpected: torch.Tensor

    @property
    def score(self) -> torch.Tensor:
        """The probability that one of two independent events happens."""
        return self.expected + self.unexpected - self.expected * self.unexpected


class SurpriseRouter(nn.Module):
    """Scores tokens by what a layer changed (``static``, D_st) and what was unforeseen of that (``change``, D_ch).

    ``o_ce`` and ``m_cu`` are learned through softplus, so that they stay positive.

    Args:
        window: of the moving average of ``static``.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.o_ce = nn.Parameter(torch.full((1,), RAW_O_CE))
        self.m_cu = nn.Parameter(torch.full((1,), RAW_M_CU))

    def init_weights(self) -> None:
        """Sets the parameters to where they start."""
        nn.init.constant_(self.o_ce, RAW_O_CE)
        nn.init.constant_(self.m_cu, RAW_M_CU)

    def surprise(
        self,
        static: torch.Tensor,
        change: torch.Tensor,
        beta_ce: torch.Tensor,
        beta_cu: torch.Tensor,
        positions: torch.Tensor | None,
    ) -> Surprise:
        """The surprise of each token.

        Args:
            static: D_st, fp32 ``[batch, seq_len]``.
            change: D_ch, likewise.
            beta_ce: how sharply expected change is told from none, ``[]`` or ``[1]``.
            beta_cu: likewise unexpected change.
            positions: of each token in its document; None where each row is one document.
        """
        average = moving_average(static, positions, self.window)
        ce = static - (change - torch.log(effective(self.o_ce) + EPS))
        cu = static - effective(self.m_cu) * average
        return Surprise(torch.sigmoid(beta_ce * ce), torch.sigmoid(beta_cu * cu))


def effective(raw: torch.Tensor) -> torch.Tensor:
    """What a raw parameter stands for: its softplus, in fp32."""
    return F.softplus(raw.float())
