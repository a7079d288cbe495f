"""Renders a conversation by its template and finds the spans that the model must learn to write.

A template with ``{% generation %}`` marks them itself. Otherwise a turn begins at the end of its generation prompt and
ends with its last special token. Either way the text before a trained turn must be exactly the prompt that inference
would give: a template that isn't stable in that sense would train answers to prompts that are never asked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from titanflow.config.files.chat_template import is_built_in
from titanflow.config.files.template_args import names_of
from titanflow.data.chat.keys import spelled
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.behind_prompt import answer_start
from titanflow.data.chat.proof.call_forms import Messages, with_text_arguments
from titanflow.data.chat.quoted import hide_quoted
from titanflow.data.chat.thoughts import ASKED_FOR, Opening
from titanflow.data.tokenizer.template_program import ChatRefused, Marked, Span, TemplateProgram

Turns = Literal["all", "last", "each"]
ToolArguments = Literal["mapping", "text"]
# No text begins with this private-use character.
_OTHER = chr(0xF0FFE)


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation; ``quoted`` maps its stand-ins to the special tokens that messages quote.

    ``turns`` are the numbers of the trained messages, ``spans`` the trained ``(start, end)``, and ``starts`` the ends
    of these messages' prompts. All are in order, and places are in characters.
    """

    text: str
    spans: list[Span]
    turns: list[int]
    quoted: Mapping[str, str]
    starts: list[int] = field(default_factory=list)

    @property
    def borders(self) -> frozenset[int]:
        return frozenset([*self.starts, *itertools.chain.from_iterable(self.spans)])


class ChatRenderer:
    """Renders with one template for one tokenizer.

    Args:
        template: the Jinja source.
        name: its name in messages.
        special: finds the tokenizer's special tokens in a text.
        variables: the template's variables beside the messages.
        turns: trains all of the assistant's turns or only the last; ``train: false`` of a turn has precedence. With
            ``each``, the caller ends a conversation with the turn to train.
        tool_arguments: whether the template gets a call's arguments as a mapping or as JSON.
    """

    def __init__(
        self,
        template: str,
        name: str,
        special: re.Pattern[str],
        variables: Mapping[str, str],
        turns: Turns = "all",
        tool_arguments: ToolArguments = "mapping",
    ) -> None:
        self.program = TemplateProgram(template, name, variables)
        self.name = name
        self.special = special
        self.turns = turns
        self.tool_arguments = tool_arguments
        self.is_marked = self.program.is_marked
        # Tests prove that built-in templates write each turn by itself and mark it once, so no prompt is compared.
        self.is_append_only = is_built_in(template)
        self.opening = None if self.is_append_only else self._opening()

    def render(self, conversation: Conversation) -> Rendered:
        """The whole conversation.

        Raises:
            ChatRefused: the template fails on it, isn't stable, or ends a trained turn with no special token.
        """
        shown, tools, quoted = hide_quoted(self.given(conversation), conversation.tools, self.special)
        text, marked = self.program.text(shown, tools)
        turns, last = _turns(shown), len(shown) - 1
        asked = turns if self.turns == "all" else turns[-1:]
        trained = [turn for turn in asked if conversation.messages[turn].get("train", True)]
        if self.is_append_only:
            spans = [span for span, turn in zip(marked, turns, strict=True) if turn in trained]
            return Rendered(text, spans, trained, quoted, [start for start, _ in spans])
        if trained[-1:] == [last] and (self.opening or len(trained) == 1):
            prompt, _ = self.program.text(shown[:last], tools, add_generation_prompt=True)
            if self.opening:
                text, marked = self._with_thoughts(text, marked, prompt, shown, self.opening)
            if len(trained) == 1:
                text, marked = self._behind_prompt(text, marked, prompt, shown, tools)
        # A mark of a turn that isn't trained must not count as that of the trained one before it.
        followed = [turn for turn in turns if turn > min(trained, default=len(shown))] if self.is_marked else []
        places = self._starts(text, shown, tools, sorted({*trained, *followed}))
        starts = [places[turn] for turn in trained]
        if not self.is_marked:
            ends = [self._end(text, shown, tools, turn, start) for turn, start in zip(trained, starts, strict=True)]
            return Rendered(text, list(zip(starts, ends, strict=True)), trained, quoted, starts)
        return Rendered(text, self._marked_spans(marked, places, trained), trained, quoted, starts)

    def prompt(self, conversation: Conversation) -> Rendered:
        """The text that a model is asked with: the messages and the assistant's header."""
        return self.plain(conversation, add_generation_prompt=True)

    def plain(self, conversation: Conversation, add_generation_prompt: bool = False) -> Rendered:
        """The text alone, without trained spans."""
        messages, tools, quoted = hide_quoted(self.given(conversation), conversation.tools, self.special)
        return Rendered(self.program.text(messages, tools, add_generation_prompt)[0], [], [], quoted)

    def _opening(self) -> Opening | None:
        try:
            return Opening.of(self.program.text([{"role": "user", "content": "question"}], None, True)[0])
        except ChatRefused:
            # A template that needs more than a question is refused later, with the conversation.
            return None

    def _with_thoughts(self, text: str, marked: list[Span], prompt: str, shown: Messages, opening: Opening) -> Marked:
        """The text and its marks, with the last turn's thoughts if its prompt opens a thought."""
        asked = prompt.removesuffix(opening.written)
        if text.startswith(prompt) or asked == prompt or not text.startswith(asked):
            return text, marked
        whole = opening.continued(prompt, text, shown[-1])
        if whole is None:
            raise ChatRefused(
                f"template {self.name} ends the prompt of messages[{len(shown) - 1}] with {opening.tag}, and the "
                f"message has no thoughts; give them as its reasoning_content, or {self._without_thoughts()}"
            )
        grown = len(whole) - len(text)
        return whole, [(start, end + grown if end > len(asked) else end) for start, end in marked]

    def _behind_prompt(self, text: str, marked: list[Span], prompt: str, messages: Messages, tools: Any) -> Marked:
        """The text and its marks, rewritten as the last turn's prompt with the answer behind it."""
        if text.startswith(prompt) or len(messages) < 2:
            return text, marked
        start = answer_start(prompt, text, self._last_message(prompt, messages[:-1], tools))
        if start is None:
            # It is then refused as unstable, with a message that shows both texts.
            return text, marked
        moved = len(prompt) - start
        return prompt + text[start:], [(max(first, start) + moved, end + moved) for first, end in marked if end > start]

    def _without_thoughts(self) -> str:
        """The setting with which a prompt opens no thought."""
        names = names_of(self.program.source)
        found = next((name for name in ASKED_FOR if name in names), "")
        return f"chat.template_args: {{{found}: false}}" if found else "a template that asks without (chat.template)"

    def _last_message(self, prompt: str, messages: Messages, tools: Any) -> int:
        """Where the text of a prompt's last message starts: there a prompt with another text begins to differ."""
        other = [*messages[:-1], {**messages[-1], "content": f"{_OTHER}{messages[-1].get('content') or ''}"}]
        return shared_length(prompt, self.program.text(other, tools, add_generation_prompt=True)[0])

    def ignores(self, conversation: Conversation, turn: int, other: dict[str, Any]) -> bool:
        """Whether the template writes the same text with ``other`` in place of a message."""
        messages = [*conversation.messages[:turn], other, *conversation.messages[turn + 1 :]]
        try:
            return self.plain(conversation).text == self.plain(replace(conversation, messages=messages)).text
        except ChatRefused:
            return False

    def _marked_spans(self, marked: list[Span], places: Mapping[int, int], trained: list[int]) -> list[Span]:
        """The marked spans of the trained turns, without marked headers, which lie before a turn's start.

        ``places`` has the start of each assistant's turn, from the first trained one on.
        """
        spans: list[Span] = []
        found: set[int] = set()
        for first, last in marked:
            turn = max((turn for turn, start in places.items() if start < last), default=-1)
            if turn in trained and max(first, places[turn]) < last:
                spans.append((max(first, places[turn]), last))
                found.add(turn)
        if missing := [turn for turn in trained if turn not in found]:
            raise ChatRefused(f"template {self.name} marks nothing of messages[{missing[0]}] as the assistant's")
        return spans

    def _starts(self, text: str, messages: Messages, tools: Any, turns: list[int]) -> dict[int, int]:
        """Where each of these turns begins: at the end of its prompt."""
        prompts = self.program.texts([messages[:turn] for turn in turns], tools, add_generation_prompt=True)
        for turn, (prompt, _) in zip(turns, prompts, strict=True):
            if not text.startswith(prompt):
                shared = shared_length(prompt, text)
                raise ChatRefused(
                    f"template {self.name} isn't stable: messages[{turn}] would be asked for with "
                    f"{_shown(prompt, shared)}, and is trained after {_shown(text, shared)}{self._way_out()}"
                )
        return {turn: len(prompt) for turn, (prompt, _) in zip(turns, prompts, strict=True)}

    def _end(self, text: str, messages: Messages, tools: Any, turn: int, start: int) -> int:
        """Where a turn of an unmarked template ends: with the last special token of the text that it adds."""
        through = text if turn + 1 == len(messages) else self.program.text(messages[: turn + 1], tools)[0]
        until = shared_length(through, text)
        # Two special tokens may begin alike: the shared text must not end within one.
        begun = (match.start() for match in self.special.finditer(through) if match.end() > until)
        until = min(until, next(begun, until))
        ends = [match.end() for match in self.special.finditer(text, start, until)]
        # Some templates end a conversation, rather than a turn, with the end of text: it goes when more follows.
        has_ended = bool(ends) and not text[ends[-1] : until].strip()
        if until < len(through) and not (has_ended and not self.special.sub("", through[until:]).strip()):
            raise ChatRefused(
                f"template {self.name} isn't stable: it changes messages[{turn}] when more follows{self._way_out()}"
            )
        if not ends:
            raise ChatRefused(
                f"template {self.name} ends messages[{turn}] with no special token; write one behind each answer, in a "
                "file of your own (chat.template), or make one of what it writes there (tokenizer.new_special_tokens)"
            )
        return ends[-1]

    def _way_out(self) -> str:
        if self.turns != "all":
            return ""
        return (
            "; chat.turns: last trains the last turn alone, chat.turns: each makes a row of each turn, "
            "after the history that it is asked with"
        )

    def given(self, conversation: Conversation) -> Messages:
        """The messages in the template's form: its own names for thoughts, arguments as text if it wants them so.

        No template sees which turns are trained: a prompt is the same whether or not they are.
        """
        plain = [{key: value for key, value in message.items() if key != "train"} for message in conversation.messages]
        messages = spelled(plain, self.program.source)
        return with_text_arguments(messages) if self.tool_arguments == "text" else messages


def _turns(messages: Messages) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the longest common beginning of two texts or two lists."""
    if one == other[: len(one)]:
        return len(one)
    differ = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(one), len(other)))


def _shown(text: str, at: int) -> str:
    return repr(text[max(0, at - 20) : at + 20])
