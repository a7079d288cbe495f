"""The tokens that end trained turns, as they stand in the rows: generation stops at each of them.

Templates end turns with more than one token: a call otherwise than an answer, the last turn otherwise than the ones
before it. What a probe ends with is not what all rows end with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from titanflow.data.chat import Encoded
from titanflow.data.chat_format import Conversation
from titanflow.data.tokenizer import LoadedTokenizer


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
    """Finds the ends of turns of one tokenizer's rows."""

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self.backend = tokenizer.backend
        self.special = {number for number, _ in tokenizer.special.values()}
        self.end_of_text = tokenizer.end_of_text_id
        self._blank: dict[int, bool] = {}

    def read(self, conversation: Conversation, encoded: Encoded) -> TurnEnds:
        """The ends of a whole conversation's trained turns."""
        found, ended = TurnEnds(), 0
        for run in self._runs(encoded):
            behind = self._behind(run)
            closing = [token for token in run[behind:] if token in self.special]
            found.within.update({token for token in run[:behind] if token in self.special})
            if not closing:
                continue
            number = encoded.turns[min(ended, len(encoded.turns) - 1)]
            ended += 1
            found.ends.update({*closing[-1:], *self._before_end_of_text(closing, conversation.messages[number])})
        return found

    def _before_end_of_text(self, closing: list[int], message: dict[str, object]) -> list[int]:
        """The token that ends an answer where the end of text follows it, as in Phi's: that closes the conversation.

        Behind a call the token before it may end the call alone, and another call may follow.
        """
        is_closed = closing[-1] == self.end_of_text and not message.get("tool_calls")
        return closing[-2:-1] if is_closed else []

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
