"""Reads rows of pairs into one form: a chosen and a rejected conversation that begin with the same prompt.

A row has the columns ``chosen`` and ``rejected``, and may have the prompt in a column of its own. Without one, the
prompt is what both sides begin with. Sides and prompt are lists of messages, one message, or texts:

- ``messages``: OpenAI's and TRL's, with messages of ``{role, content}`` and the prompt in ``prompt``;
- ``sharegpt``: messages of ``{from, value}``, with the prompt in ``conversations``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.chat_columns import PAIRS, SIDES
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ROLES, ChatFormat, Conversation, Unreadable, listed, missing_columns


@dataclass(frozen=True)
class Pair:
    """One pair; it can be trained on if ``problems`` is empty.

    Both sides are whole conversations. Of these the first ``prompt`` messages are shared and not trained.
    """

    chosen: Conversation
    rejected: Conversation
    prompt: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def unread(self) -> Counter[str]:
        """The columns and keys of messages that nothing here understands; a column counts once for both sides."""
        return self.chosen.unread | self.rejected.unread

    @property
    def sides(self) -> tuple[Conversation, Conversation]:
        return self.chosen, self.rejected

    @classmethod
    def refused(cls, *problems: Problem) -> Pair:
        return cls(Conversation([]), Conversation([]), problems=list(problems))


@dataclass(frozen=True)
class PairFormat:
    """A layout with its columns resolved; ``chat`` reads the messages of a side."""

    columns: Mapping[str, str]
    chat: ChatFormat

    @classmethod
    def of(cls, data: Data) -> PairFormat:
        columns = {**PAIRS[data.chat_format], **data.columns}
        of_chat = {name: column for name, column in columns.items() if name not in ("prompt", *SIDES)}
        roles = {**ROLES[data.chat_format], **data.roles}
        return cls(columns, ChatFormat(data.chat_format, of_chat, roles, frozenset(data.leave_out)))

    def missing(self, row: Mapping[str, Any]) -> list[Problem]:
        """A problem for each required column that a row lacks."""
        return missing_columns([self.columns[side] for side in SIDES], row, PAIRS)

    def pair(self, row: Any) -> Pair:
        """Reads one row. The problems have no origin: only the caller knows the file and line."""
        if isinstance(row, Unreadable):
            return Pair.refused(Problem(row.reason, "row", expected="a JSON object a line"))
        if not isinstance(row, dict):
            return Pair.refused(Problem(f"the row isn't a mapping but {type(row).__name__}", "row"))
        if missing := self.missing(row):
            return Pair.refused(*missing)
        prompt, *sides = (listed(row.get(self.columns[name]), self.columns["role"]) for name in ("prompt", *SIDES))
        if sides[0] == sides[1]:
            return Pair.refused(Problem("both sides are the same", self.columns["rejected"], expected="two answers"))
        parted = self._parted(prompt, sides)
        if isinstance(parted, Problem):
            return Pair.refused(parted)
        prompt, sides = parted
        rest = {name: value for name, value in row.items() if name not in self._own()}
        chosen, rejected = (self._side(name, rest, prompt, side) for name, side in zip(SIDES, sides, strict=True))
        if problems := [*chosen.problems, *rejected.problems]:
            return Pair.refused(*problems)
        return self._checked(chosen, rejected, len(chosen.messages) - len(sides[0]))

    def _own(self) -> set[str]:
        return {self.columns[name] for name in ("prompt", *SIDES)}

    def _parted(self, prompt: Any, sides: list[Any]) -> tuple[list[Any], list[list[Any]]] | Problem:
        """The prompt's messages, and each side's behind them."""
        if not prompt and all(isinstance(side, str) for side in sides):
            prompt = shared_text(*sides)
            sides = [side[len(prompt) :] for side in sides]
            ended = [name for name, side in zip(SIDES, sides, strict=True) if not side.strip()]
            if prompt and ended:
                return self._ended(ended[0])
        elif not prompt:
            if texts := [name for name, side in zip(SIDES, sides, strict=True) if not isinstance(side, list)]:
                found = f"{texts[0]} isn't a list of messages, and the row has no {self.columns['prompt']}"
                return Problem(found, self.columns[texts[0]], expected="messages in both sides, or texts")
            shared = shared_length(*sides)
            prompt, sides = sides[0][:shared], [side[shared:] for side in sides]
        if not prompt:
            found = "the prompts differ: the sides share no beginning, and the row names no prompt"
            return Problem(found, self.columns["prompt"], expected="the same messages before both answers")
        asked = prompt if isinstance(prompt, list) else [self._message("user", prompt)]
        answers = [side if isinstance(side, list) else [self._message("assistant", side)] for side in sides]
        # Some data sets repeat the prompt in each side.
        return asked, [side[len(asked) :] if side[: len(asked)] == asked else side for side in answers]

    def _message(self, role: str, content: Any) -> dict[str, Any]:
        return {self.columns["role"]: role, self.columns["content"]: content}

    def _side(self, name: str, rest: dict[str, Any], prompt: list[Any], side: list[Any]) -> Conversation:
        """A side read as a conversation, whose column has the side's own name in problems."""
        column = self.columns[name]
        chat = replace(self.chat, columns={**self.chat.columns, "messages": column})
        read = chat.conversation({**rest, column: [*prompt, *side]})
        problems = [
            replace(problem, key=f"{column}{problem.key.removeprefix('messages')}")
            if problem.key.startswith("messages")
            else problem
            for problem in read.problems
        ]
        return replace(read, problems=problems)

    def _checked(self, chosen: Conversation, rejected: Conversation, prompt: int) -> Pair:
        """The pair, with the prompt's answers marked as context."""
        answers = {name: side.messages[prompt:] for name, side in zip(SIDES, (chosen, rejected), strict=True)}
        if empty := next((name for name, answer in answers.items() if not answer), None):
            return Pair.refused(self._ended(empty))
        for name, answer in answers.items():
            column = self.columns[name]
            if answer[0]["role"] != "assistant":
                found = f"the prompts differ: behind the messages that are shared, {name} goes on with a {{}}"
                expected = "the same messages before both answers"
                return Pair.refused(Problem(found.format(f"{answer[0]['role']}'s message"), column, expected=expected))
            if not any(one["role"] == "assistant" and one.get("train", True) for one in answer):
                expected = "an answer without train: false"
                return Pair.refused(Problem(f"nothing of the {name} side is trained", column, expected=expected))
        if chosen.messages == rejected.messages:
            return Pair.refused(Problem("both sides are the same", self.columns["rejected"], expected="two answers"))
        return Pair(_with_context(chosen, prompt), _with_context(rejected, prompt), prompt)

    def _ended(self, side: str) -> Problem:
        return Problem("this side ends with what the sides share", self.columns[side], expected="an answer")


def format_of(data: Data) -> ChatFormat | PairFormat:
    """The layout that a data config declares."""
    return PairFormat.of(data) if data.kind == "pairs" else ChatFormat.of(data)


def shared_length(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """How many messages or letters two sequences begin with alike."""
    pairs = zip(chosen, rejected, strict=False)
    shorter = min(len(chosen), len(rejected))
    return next((number for number, (one, other) in enumerate(pairs) if one != other), shorter)


def shared_text(chosen: str, rejected: str) -> str:
    """The beginning that two texts share, without a last blank: it belongs to the answers' first words, as in TRL."""
    return chosen[: shared_length(chosen, rejected)].removesuffix(" ")


def _with_context(side: Conversation, prompt: int) -> Conversation:
    asked = [{**one, "train": False} if one["role"] == "assistant" else one for one in side.messages[:prompt]]
    return replace(side, messages=[*asked, *side.messages[prompt:]])
