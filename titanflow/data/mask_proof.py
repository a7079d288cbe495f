"""The proof that a mask trains what it should, made from the tokens alone.

The mask is built from spans of the rendered text; the proof decodes the trained tokens again and compares them with
the messages, so that a mistake in the one isn't repeated in the other.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.data.chat import ChatEncoder, Encoded
from titanflow.data.chat_format import Conversation
from titanflow.errors import Problem


class MaskProof:
    """Proves rows of one encoder.

    Each row has a trained token; its trained tokens are as many runs as there are trained turns; each run says
    what its turn says, ends with an end of turn, and holds nothing of a user's, system's or tool's message.
    """

    def __init__(self, encoder: ChatEncoder) -> None:
        self.backend = encoder.tokenizer.backend
        self.ends = {number for number, _ in encoder.tokenizer.special.values()}

    def fault(self, conversation: Conversation, encoded: Encoded) -> Problem | None:
        """What is wrong with a row's mask, or None."""
        if not encoded.trained.any():
            return None if not encoded.turns else self._problem("nothing of it is trained", "messages")
        runs = self._turns(encoded)
        if len(runs) != len(encoded.turns):
            found = f"{len(encoded.turns)} turns are to be trained, and the trained tokens end {len(runs)} turns"
            return self._problem(found, "messages")
        for turn, run in zip(encoded.turns, runs, strict=True):
            if fault := self._turn_fault(conversation.messages, turn, run):
                return self._problem(fault, f"messages[{turn}]")
        return None

    def _turns(self, encoded: Encoded) -> list[list[int]]:
        """The trained tokens of each turn: runs, joined until one ends with a special token."""
        turns: list[list[int]] = []
        is_open = False
        for run in _runs(encoded):
            turns = [*turns[:-1], turns[-1] + run] if is_open else [*turns, run]
            is_open = self._end(run) is None
        return turns

    def _end(self, run: list[int]) -> int | None:
        """Where in a run its end of turn stands: last but for blank space."""
        for place in range(len(run) - 1, -1, -1):
            if run[place] in self.ends:
                return place
            if self._text([run[place]]).strip():
                return None
        return None

    def _turn_fault(self, messages: list[dict[str, Any]], turn: int, run: list[int]) -> str:
        end = self._end(run)
        if end is None:
            return f"its trained tokens end with {self._text(run[-3:])!r}, no end of turn"
        said, message = self._text(run[:end]), messages[turn]
        content = message.get("content") or ""
        calls = [call["function"] for call in message.get("tool_calls") or []]
        for text in [content.strip(), *(call["name"] for call in calls)]:
            if text and text not in said and self._round_trip(text) not in said:
                return f"its trained tokens say {_shown(said)} where the message says {_shown(text)}"
        if len(said.strip()) > len(content.strip()) and (foreign := self._foreign(messages, message, said)):
            return f"its trained tokens hold {_shown(foreign)}, which is not the assistant's"
        return ""

    def _foreign(self, messages: list[dict[str, Any]], message: dict[str, Any], said: str) -> str:
        """A message of another role that stands in what is trained, and not in the assistant's own words."""
        own = json.dumps(message, ensure_ascii=False, default=str)
        for other in messages:
            text = (other.get("content") or "").strip() if other["role"] != "assistant" else ""
            escaped = json.dumps(text, ensure_ascii=False)[1:-1]
            if text and text in said and escaped not in own and text not in own:
                return text
        return ""

    def _text(self, ids: list[int]) -> str:
        return str(self.backend.decode(ids, skip_special_tokens=False))

    def _round_trip(self, text: str) -> str:
        """What is left of a text in a vocabulary that loses some: normalised, or with unknown characters."""
        return self._text(self.backend.encode(text, add_special_tokens=False).ids).strip()

    def _problem(self, found: str, key: str) -> Problem:
        hint = "`titanflow masks` shows the row; the template is what says which text is the assistant's"
        return Problem(f"the mask is wrong: {found}", key, hint=hint)


def _runs(encoded: Encoded) -> list[list[int]]:
    """The tokens of each unbroken run of trained ones."""
    padded: NDArray[np.int8] = np.concatenate([[0], encoded.trained.view(np.int8), [0]]).astype(np.int8)
    borders = np.flatnonzero(np.diff(padded)).reshape(-1, 2)
    return [encoded.ids[start:end].tolist() for start, end in borders]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
