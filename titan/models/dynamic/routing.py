"""Which tokens a layer computes, and how they are taken out of their rows and put back.

In training each row has a fixed number of selected tokens, so shapes are static. In evaluation each token has to pass
a threshold, so its choice depends on no later token and on no other row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Selection:
    """Selected tokens of each row, in their order.

    ``indices`` is int64 ``[batch, k]``: columns. If rows have different numbers, the shorter are padded at the end with
    tokens that aren't selected; ``is_selected`` (bool ``[batch, k]``) tells them apart, and is None without padding.
    """

    indices: torch.Tensor
    is_selected: torch.Tensor | None = None

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """The selected columns of ``[batch, seq_len, …]``: ``[batch, k, …]``."""
        index = self.indices.view(*self.indices.shape, *[1] * (x.ndim - 2))
        return x.gather(1, index.expand(-1, -1, *x.shape[2:]))

    def put(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """``x`` with its selected columns replaced by ``values`` ``[batch, k, dim]``."""
        if self.is_selected is not None:
            values = torch.where(self.is_selected.unsqueeze(-1), values, self.take(x))
        return x.scatter(1, self.indices.unsqueeze(-1).expand_as(values), values.to(x.dtype))

    def mark(self, seq_len: int) -> torch.Tensor:
        """Bool ``[batch, seq_len]``: which columns are selected."""
        marked = torch.zeros(self.indices.shape[0], seq_len, dtype=torch.bool, device=self.indices.device)
        chosen = torch.ones_like(self.indices, dtype=torch.bool) if self.is_selected is None else self.is_selected
        return marked.scatter(1, self.indices, chosen)

    def mask(self, positions: torch.Tensor | None) -> torch.Tensor | None:
        """Which selected keys a selected query sees, bool ``[batch, 1, k, k]``; None for all before it.

        ``positions`` ``[batch, seq_len]`` are all tokens' in their documents; None if a row is one document. Padding
        stands behind a row's selected tokens, which therefore never see it.
        """
        if positions is None:
            return None
        starts = self.indices - self.take(positions)
        order = torch.arange(self.indices.shape[1], device=starts.device)
        is_before = order[:, None] >= order[None, :]
        return (is_before & (starts[:, :, None] == starts[:, None, :])).unsqueeze(1)


def capacity(seq_len: int, share: float) -> int:
    """How many tokens of a row are selected in training: ``max(1, ⌊share · seq_len⌋)``."""
    # 0.29 · 100 is 28.999999999999996, and 29 tokens are meant.
    return max(1, int(share * seq_len + 1e-6))


def select_top(scores: torch.Tensor, share: float) -> Selection:
    """The fixed share of tokens with the highest ``scores`` ``[batch, seq_len]`` of each row.

    The documents packed into a row share its budget.
    """
    top = scores.topk(capacity(scores.shape[1], share), dim=1, sorted=False).indices
    return Selection(top.sort(dim=1).values)


def select_where(chosen: torch.Tensor) -> Selection:
    """The tokens where bool ``chosen`` ``[batch, seq_len]`` is true; as wide as the longest row of them."""
    width = int(chosen.sum(1).max())
    indices = (~chosen).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    return Selection(indices, chosen.gather(1, indices))
