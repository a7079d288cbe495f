"""Finds the tokens that end trained turns in the rows: generation stops at each of them.

A template may end a call with another token than an answer, and the last turn with another one than earlier turns. So
a single probe doesn't show them all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from titanflow.data.chat.encoder import ChatEncoder, Encoded


@dataclass
class TurnEnds:
    """Counts of trained turns for each token: those that it ends, and those that go on behind it."""

    ends: Counter[int] = field(default_factory=Counter)
    within: Counter[int] = field(default_factory=Counter)

    @property
    def ordered(self) -> list[int]:
        """The ends, the most frequent first."""
        return sorted(self.ends, key=lambda token: (-self.ends[token], token))

    @property
    def ambiguous(self) -> list[int]:
        """The tokens at which generation would have to stop in some turns and go on in others."""
        return [token for token in self.ordered if self.within[token]]


class TurnEndReader:
    """Finds the ends of turns in the rows of one encoder."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self.tokenizer = encoder.tokenizer
        self.special = self.tokenizer.special_ids
        # An end of text that closes a conversation stands behind the last turn's own end.
        self.closing = self.tokenizer.end_of_text_id if encoder.closes_conversations else None
        self._blank: dict[int, bool] = {}

    def read(self, encoded: Encoded) -> TurnEnds:
        """The ends of a whole conversation's trained turns."""
        found = TurnEnds()
        for start, end in encoded.runs:
            run = encoded.ids[start:end].tolist()
            behind = self._behind(run)
            closing = [token for token in run[behind:] if token in self.special]
            found.within.update({token for token in run[:behind] if token in self.special})
            found.ends.update(set(closing[-2:] if closing[-1:] == [self.closing] else closing[-1:]))
        return found

    def _behind(self, run: list[int]) -> int:
        """Where a run's last word ends: only special tokens and blanks follow."""
        for place in range(len(run), 0, -1):
            if run[place - 1] not in self.special and not self._is_blank(run[place - 1]):
                return place
        return 0

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not self.tokenizer.decode([token]).strip()
        return self._blank[token]
