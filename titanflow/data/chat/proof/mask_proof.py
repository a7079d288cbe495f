"""Proves from the tokens alone that a mask trains what it should.

The mask is built from spans of the rendered text. The proof instead decodes the trained tokens and compares them with
the messages, so that it doesn't repeat a mistake of the mask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from titanflow.common.errors import Problem
from titanflow.data.chat.check import shown_text
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation

# A shorter message of another role may stand by chance in the text that a template writes around a call.
_TELLING = 16


@dataclass(frozen=True)
class TrainedTurn:
    """A turn's trained tokens ``run``, the place of the first, and in ``gaps`` the untrained ones before each part."""

    start: int
    run: list[int]
    gaps: list[list[int]]


class MaskProof:
    """Proves rows of one encoder.

    A row has a trained token, and one run of them for each trained turn. A run says what its turn says, ends with its
    only end of turn, and has nothing of a user's, system's or tool's message. Its whole generation prompt stands
    untrained before it.
    """

    def __init__(self, encoder: ChatEncoder) -> None:
        self.encoder = encoder
        self.tokenizer = encoder.tokenizer
        self.ends = self.tokenizer.special_ids

    def fault(self, conversation: Conversation, encoded: Encoded) -> Problem | None:
        if not encoded.trained.any():
            return None if not encoded.turns else self._problem("nothing of it is trained", "messages")
        turns = self._turns(encoded)
        if len(turns) != len(encoded.turns):
            found = f"{len(encoded.turns)} turns are to be trained, but the trained tokens end {len(turns)}"
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
        for start, end in encoded.runs:
            run, gap = encoded.ids[start:end].tolist(), encoded.ids[previous:start].tolist()
            if is_open:
                turns[-1].run.extend(run)
                turns[-1].gaps.append(gap)
            else:
                turns.append(TrainedTurn(start, run, [gap]))
            is_open, previous = self._end(run) is None, end
        return turns

    def _header_fault(self, conversation: Conversation, encoded: Encoded, number: int, trained: TrainedTurn) -> str:
        """The fault if a turn's prompt is partly trained or has other tokens than inference; empty if there is none."""
        header = self.encoder.header
        if header and any(_holds(gap, header) for gap in trained.gaps[1:]):
            return "its trained tokens begin before its header"
        if header and trained.gaps[0][-len(header) :] == header:
            return ""
        prompt = self.encoder.prompt(Conversation(conversation.messages[:number], conversation.tools))
        if trained.start < len(prompt):
            said = self.tokenizer.decode(prompt[trained.start :])
            return f"its trained tokens begin with {said!r}, which is part of its prompt"
        begins = encoded.ids[: len(prompt)].tolist() == prompt
        return "" if begins else "its tokens don't begin with those of its prompt"

    def _end(self, run: list[int]) -> int | None:
        """The place of a run's end of turn, which only blanks may follow."""
        for place in range(len(run) - 1, -1, -1):
            if run[place] in self.ends:
                return place
            if self.tokenizer.decode([run[place]]).strip():
                return None
        return None

    def _turn_fault(self, messages: list[dict[str, Any]], turn: int, trained: TrainedTurn) -> str:
        run, is_whole = trained.run, len(trained.gaps) == 1
        end = self._end(run)
        if end is None:
            return f"its trained tokens end with {self.tokenizer.decode(run[-3:])!r}, no end of turn"
        if self.encoder.end_of_turn_id in run[:end]:
            last = self.tokenizer.decode(run[end - 3 : end + 1])
            return f"its trained tokens go on after the end of turn, with {last!r}"
        said, message = self.tokenizer.decode(run[:end]), messages[turn]
        content = message.get("content") or ""
        calls = [call["function"] for call in message.get("tool_calls") or []]
        for text in [content.strip(), *(call["name"] for call in calls)]:
            if not self._says(said, text, is_whole):
                return f"its trained tokens say {shown_text(said)} where the message says {shown_text(text)}"
        if len(said.strip()) > len(content.strip()) and (foreign := self._foreign(messages, message, said)):
            return f"its trained tokens hold {shown_text(foreign)}, which is not the assistant's"
        return ""

    def _foreign(self, messages: list[dict[str, Any]], message: dict[str, Any], said: str) -> str:
        """Another role's message that is part of the trained text, but not of the assistant's own words."""
        own = json.dumps(message, ensure_ascii=False, default=str)
        for other in messages:
            text = (other.get("content") or "").strip() if other["role"] != "assistant" else ""
            escaped = json.dumps(text, ensure_ascii=False)[1:-1]
            if len(text) >= _TELLING and text in said and escaped not in own and text not in own:
                return text
        return ""

    def _says(self, said: str, text: str, is_whole: bool) -> bool:
        """Whether a text is said; a template may change the blanks of a turn that is trained as a whole.

        The generation prompt may say its beginning: some open a thought.
        """
        said = self.tokenizer.decode(self.encoder.header) + said
        if text in said or self._round_trip(text) in said:
            return True
        return is_whole and "".join(text.split()) in "".join(said.split())

    def _round_trip(self, text: str) -> str:
        """A text as its tokens keep it: perhaps normalised, or with unknown characters."""
        return self.tokenizer.decode(self.tokenizer.encode(text)).strip()

    def _problem(self, found: str, key: str) -> Problem:
        hint = "`titanflow masks` shows the row; the template decides which text is the assistant's"
        return Problem(f"the mask is wrong: {found}", key, hint=hint)


def _holds(tokens: list[int], part: list[int]) -> bool:
    return any(tokens[start : start + len(part)] == part for start in range(len(tokens) - len(part) + 1))
