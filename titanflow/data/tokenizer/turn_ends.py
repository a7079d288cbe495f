"""The tokens that end trained turns, as they stand in the rows: generation stops at each of them.

Templates end turns with more than one token: a call otherwise than an answer, the last turn otherwise than the ones
before it. What a probe ends with is not what all rows end with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from titanflow.data.chat.encoder import ChatEncoder, Encoded


@dataclass
class TurnEnds:
    """Of each token, how many trained turns it ends, and within how many something is said behind it."""

    ends: Counter[int] = field(default_factory=Counter)
    within: Counter[int] = field(default_factory=Counter)

    @property
    def ordered(self) -> list[int]:
        """The tokens that end turns, the most frequent first."""
        return sorted(self.ends, key=lambda token: (-self.ends[token], token))

    @property
    def ambiguous(self) -> list[int]:
        """Tokens at which generation would have to stop in some turns and to go on in others."""
        return [token for token in self.ordered if self.within[token]]


class TurnEndReader:
    """Finds the ends of turns in the rows of one encoder."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self.backend = encoder.tokenizer.backend
        self.special = {number for number, _ in encoder.tokenizer.special.values()}
        # What closes a conversation stands behind the end of its last turn.
        self.closing = encoder.tokenizer.end_of_text_id if encoder.closes_conversations else None
        self._blank: dict[int, bool] = {}

    def read(self, encoded: Encoded) -> TurnEnds:
        """The ends of a whole conversation's trained turns."""
        found = TurnEnds()
        for run in self._runs(encoded):
            behind = self._behind(run)
            closing = [token for token in run[behind:] if token in self.special]
            found.within.update({token for token in run[:behind] if token in self.special})
            if not closing:
                continue
            found.ends.update({*closing[-1:], *(closing[-2:-1] if closing[-1] == self.closing else ())})
        return found

    def _behind(self, run: list[int]) -> int:
        """Where the last thing that is said ends: behind it stand special tokens and blank space alone."""
        for place in range(len(run), 0, -1):
            if run[place - 1] not in self.special and not self._is_blank(run[place - 1]):
                return place
        # An empty answer.
        return 0

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not self.backend.decode([token], skip_special_tokens=False).strip()
        return self._blank[token]

    @staticmethod
    def _runs(encoded: Encoded) -> list[list[int]]:
        borders = np.flatnonzero(np.diff(encoded.trained, prepend=False, append=False)).reshape(-1, 2)
        return [encoded.ids[start:end].tolist() for start, end in borders.tolist()]
