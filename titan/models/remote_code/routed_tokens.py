"""The tokens of a model with routed layers: where they stand, what each sees, and what a routed layer keeps of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicLayer

NOWHERE = -1
"""The place of what is no token: padding, and what fills a row up."""


@dataclass
class Tokens:
    """The tokens of one forward pass.

    ``places`` counts them from the start of the row (of the cache, where there is one), ``positions`` from the start
    of their document, ``starts`` is the first place that each may see; all int64 ``[batch, tokens]``. ``is_real`` is
    false for padding, ``has_hole`` true where padding stands between tokens. ``rotary`` is RoPE's cosine and sine,
    ``[batch, tokens, head_dim]`` each, and ``mask`` that of the dense layers.
    """

    places: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    is_real: torch.Tensor
    has_hole: bool = False
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None
    mask: torch.Tensor | None = None


def take(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The columns ``[batch, k]`` of ``[batch, tokens, …]``: ``[batch, k, …]``."""
    index = indices.view(*indices.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


def visible(places: torch.Tensor, starts: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Which keys a query sees: those of its document that don't come after it. Bool ``[batch, 1, queries, keys]``.

    Args:
        places: of the queries, ``[batch, queries]``; the last keys are their own.
        starts: the first place that each may see.
        keys: the places of all keys, ``[batch, keys]``.
    """
    queries, columns = places.shape[1], torch.arange(keys.shape[1], device=keys.device)
    # What is no token sees itself, for a softmax over nothing is no number.
    is_own = columns == columns[len(columns) - queries :, None]
    keys = keys[:, None, :]
    return ((keys <= places[:, :, None]) & (keys >= starts[:, :, None]) | is_own).unsqueeze(1)


class RoutedCacheLayer(DynamicLayer):
    """A routed layer's part of the cache: keys and values of the tokens that it computed.

    A column holds one token of each row, or ``NOWHERE`` in a row that has none for it.

    Attributes:
        seen: how many tokens have come by, computed or not.
        places: of each column in its row of tokens, int64 ``[batch, columns]``; None before the first.
        signals: numbers of each token that has come by, ``[batch, seen]`` by name: for a router that looks back.
    """

    ROWS = ("keys", "values", "places")

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.places: torch.Tensor | None = None
        self.signals: dict[str, torch.Tensor] = {}

    def add_signals(self, name: str, signals: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Keeps one kind of signals ``[batch, tokens]`` of new tokens; returns those of all.

        Raises:
            ValueError: padding stands between tokens, of which the router would look back at the padding.
        """
        if tokens.has_hole:
            raise ValueError(
                "attention_mask: found padding between the tokens of a row, expected it before them: this model's "
                "routers look back at the tokens before"
            )
        if name in self.signals:
            signals = torch.cat([self.signals[name], signals], dim=1)
        self.signals[name] = signals
        return signals

    def add_places(self, places: torch.Tensor, tokens: int) -> torch.Tensor:
        """Keeps where the columns ``[batch, columns]`` stand that were computed of so many new tokens; returns all."""
        self.seen += tokens
        self.places = places if self.places is None else torch.cat([self.places, places], dim=1)
        return self.places

    def get_seq_length(self) -> int:
        """How many tokens have come by."""
        return self.seen

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last ``-tokens_to_remove`` tokens; in transformers 4 a number above 0 is how many to keep."""
        kept = tokens_to_remove if tokens_to_remove > 0 else max(0, self.seen + tokens_to_remove)
        self.seen = min(self.seen, kept)
        self.signals = {name: signals[:, : self.seen] for name, signals in self.signals.items()}
        if self.keys is not None:
            is_kept = self.places < self.seen
            self.places = torch.where(is_kept, self.places, NOWHERE)
            columns = (self.places != NOWHERE).any(0)
            self.places, self.keys, self.values = (
                self.places[:, columns],
                self.keys[:, :, columns],
                self.values[:, :, columns],
            )

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self.seen, self.places, self.signals = 0, None, {}

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Takes other rows in place of its own: beam search."""
        self._change_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some rows."""
        self._change_rows(lambda rows: rows[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Has each row so many times."""
        self._change_rows(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def _change_rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for name in self.ROWS:
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))
        self.signals = {name: change(signals) for name, signals in self.signals.items()}
