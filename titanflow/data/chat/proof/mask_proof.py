"""The proof that a mask trains what it should, made from the tokens alone.

The mask is built from spans of the rendered text; the proof decodes the trained tokens again and compares them with
the messages, so that a mistake in the one isn't repeated in the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import Problem
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation

# A shorter message of another role may stand by chance in what the template writes around a call.
_TELLING = 16


@dataclass(frozen=True)
class TrainedTurn:
    """The trained tokens of one turn, where the first stands, and the untrained ones before each of its runs."""

    start: int
    run: list[int]
    gaps: list[list[int]]


class MaskProof:
    """Proves rows of one encoder.

    Each row has a trained token; its trained tokens are as many runs as there are trained turns; each run says
    what its turn says, ends with its only end of turn, and holds nothing of a user's, system's or tool's message;
    all of the generation prompt stands untrained before it.
    """

    def __init__(self, encoder: ChatEncoder) -> None:
        self.encoder = encoder
        self.backend = encoder.tokenizer.backend
        self.ends = {number for number, _ in encoder.tokenizer.special.values()}

    def fault(self, conversation: Conversation, encoded: Encoded) -> Problem | None:
        """What is wrong with a row's mask, or None."""
        if not encoded.trained.any():
            return None if not encoded.turns else self._problem("nothing of it is trained", "messages")
        turns = self._turns(encoded)
        if len(turns) != len(encoded.turns):
            found = f"{len(encoded.turns)} turns are to be trained, and the trained tokens end {len(turns)} turns"
            return self._problem(found, "messages")
        for number, trained in zip(encoded.turns, turns, strict=True):
            fault = self._header_fault(conversation, encoded, number, trained)
            if fault := fault or self._turn_fault(conversation.messages, number, trained):
                return self._problem(fault, f"messages[{number}]")
        return None

    def _turns(self, encoded: Encoded) -> list[TrainedTurn]:
        """The trained tokens of each turn: runs, joined until one ends with a special token."""
        turns: list[TrainedTurn] = []
        is_open, previous = False, 0
        for start, end in _borders(encoded):
            run, gap = encoded.ids[start:end].tolist(), encoded.ids[previous:start].tolist()
            if is_open:
                turns[-1].run.extend(run)
                turns[-1].gaps.append(gap)
            else:
                turns.append(TrainedTurn(start, run, [gap]))
            is_open, previous = self._end(run) is None, end
        return turns

    def _header_fault(self, conversation: Conversation, encoded: Encoded, number: int, trained: TrainedTurn) -> str:
        """Whether anything is trained of what the turn is asked for with, or its tokens are others."""
        header = self.encoder.header
        if header and any(_holds(gap, header) for gap in trained.gaps[1:]):
            return "its trained tokens begin before its header"
        if header and trained.gaps[0][-len(header) :] == header:
            return ""
        prompt = self.encoder.prompt(Conversation(conversation.messages[:number], conversation.tools))
        if trained.start < len(prompt):
            return f"it is trained from {self._text(prompt[trained.start :])!r}, which it is asked for with"
        return "" if encoded.ids[: len(prompt)].tolist() == prompt else "its tokens don't begin with its prompt's"

    def _end(self, run: list[int]) -> int | None:
        """Where in a run its end of turn stands: last but for blank space."""
        for place in range(len(run) - 1, -1, -1):
            if run[place] in self.ends:
                return place
            if self._text([run[place]]).strip():
                return None
        return None

    def _turn_fault(self, messages: list[dict[str, Any]], turn: int, trained: TrainedTurn) -> str:
        run, is_whole = trained.run, len(trained.gaps) == 1
        end = self._end(run)
        if end is None:
            return f"its trained tokens end with {self._text(run[-3:])!r}, no end of turn"
        if self.encoder.end_of_turn_id in run[:end]:
            return f"its trained tokens go on after the end of turn, with {self._text(run[end - 3 : end + 1])!r}"
        said, message = self._text(run[:end]), messages[turn]
        content = message.get("content") or ""
        calls = [call["function"] for call in message.get("tool_calls") or []]
        for text in [content.strip(), *(call["name"] for call in calls)]:
            if not self._says(said, text, is_whole):
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
            if len(text) >= _TELLING and text in said and escaped not in own and text not in own:
                return text
        return ""

    def _says(self, said: str, text: str, is_whole: bool) -> bool:
        """Whether a text is said; where nothing of a turn is left out, a template may space it otherwise.

        A generation prompt may say its beginning: some open a thought.
        """
        said = self._text(self.encoder.header) + said
        if text in said or self._round_trip(text) in said:
            return True
        return is_whole and "".join(text.split()) in "".join(said.split())

    def _text(self, ids: list[int]) -> str:
        return str(self.backend.decode(ids, skip_special_tokens=False))

    def _round_trip(self, text: str) -> str:
        """What is left of a text in a vocabulary that loses some: normalised, or with unknown characters."""
        return self._text(self.backend.encode(text, add_special_tokens=False).ids).strip()

    def _problem(self, found: str, key: str) -> Problem:
        hint = "`titanflow masks` shows the row; the template is what says which text is the assistant's"
        return Problem(f"the mask is wrong: {found}", key, hint=hint)


def _borders(encoded: Encoded) -> list[list[int]]:
    """``[start, end]`` of each unbroken run of trained tokens."""
    padded: NDArray[np.int8] = np.concatenate([[0], encoded.trained.view(np.int8), [0]]).astype(np.int8)
    borders: list[list[int]] = np.flatnonzero(np.diff(padded)).reshape(-1, 2).tolist()
    return borders


def _holds(tokens: list[int], part: list[int]) -> bool:
    """Whether ``part`` stands in ``tokens`` in one piece."""
    return any(tokens[start : start + len(part)] == part for start in range(len(tokens) - len(part) + 1))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
