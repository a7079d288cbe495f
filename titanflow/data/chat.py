"""From a conversation to tokens, and which of them are trained.

The template is rendered once, with the spans of ``{% generation %}`` that transformers reports; these spans alone
say what is trained. The text is cut at the template's own special tokens and at the spans' borders and each piece
is encoded by itself: a prompt's tokens are then exactly what inference will make of the generation prompt, and the
answer's first token never merges with the header before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from titanflow.data.tokenizer import LoadedTokenizer
from titanflow.errors import DataError, Problem

# Private-use characters that stand for special tokens quoted in a message, while the template is rendered.
_STAND_INS = [chr(code) for code in range(0xF0000, 0xF0200)]


class ChatRefused(ValueError):
    """A conversation that can't be rendered or trained on."""


class ChatEncoder:
    """Renders conversations with one template and encodes them with one tokenizer.

    Attributes:
        end_of_turn_id: the token that ends each trained turn.
    """

    def __init__(self, tokenizer: LoadedTokenizer, template: str, template_name: str = "chatml") -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.template_name = template_name
        self._special = _special_pattern(tokenizer)
        self.end_of_turn_id = self._end_of_turn()

    def encode(self, messages: list[dict[str, Any]]) -> tuple[list[int], list[bool]]:
        """A conversation's tokens, and for each whether it is trained.

        Trained are the assistant's content and its end of turn; headers, other roles' turns and what the template
        writes between turns are not.

        Raises:
            ChatRefused: the template refuses the messages, or marks nothing of them as the assistant's.
        """
        text, spans, quoted = self._render(messages, add_generation_prompt=False)
        if not any(start < end for start, end in spans):
            raise ChatRefused(f"template {self.template_name} marks nothing of it as the assistant's")
        ids: list[int] = []
        trained: list[bool] = []
        for tokens, start in self._pieces(text, spans, quoted):
            ids += tokens
            trained += [any(first <= start < last for first, last in spans)] * len(tokens)
        return ids, trained

    def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens that a model is asked with: the messages and the assistant's header.

        Raises:
            ChatRefused: the template refuses the messages.
        """
        text, _, quoted = self._render(messages, add_generation_prompt=True)
        return [token for tokens, _ in self._pieces(text, [], quoted) for token in tokens]

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool
    ) -> tuple[str, list[tuple[int, int]], dict[str, str]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        quoted = self._stand_ins(messages)
        replaced = _replace(messages, {text: stand_in for stand_in, text in quoted.items()})
        try:
            rendered, spans = render_jinja_template(
                [replaced],
                chat_template=self.template,
                return_assistant_tokens_mask=True,
                add_generation_prompt=add_generation_prompt,
                **self.tokenizer.variables,
            )
        except Exception as error:  # a template is a program: any exception is its answer to these messages
            raise ChatRefused(f"template {self.template_name} refuses it: {error}") from error
        return rendered[0], [tuple(span) for span in spans[0]], quoted

    def _stand_ins(self, messages: list[dict[str, Any]]) -> dict[str, str]:
        text = "\n".join(_strings(messages))
        free = (character for character in _STAND_INS if character not in text)
        # A token's text can hold another's; the longer one must be replaced first.
        found = sorted((token for token in self.tokenizer.special if token in text), key=len, reverse=True)
        return {next(free): token for token in found}

    def _pieces(
        self, text: str, spans: list[tuple[int, int]], quoted: dict[str, str]
    ) -> Iterator[tuple[list[int], int]]:
        """The tokens of each piece between special tokens and spans' borders, and where in the text it starts."""
        borders = {border for span in spans for border in span}
        position = 0
        for match in self._special.finditer(text):
            yield from self._plain_pieces(text, position, match.start(), borders, quoted)
            group = match.lastindex or 0
            yield [self.tokenizer.special[match.group(group)][0]], match.start(group)
            position = match.end()
        yield from self._plain_pieces(text, position, len(text), borders, quoted)

    def _plain_pieces(
        self, text: str, start: int, end: int, borders: set[int], quoted: dict[str, str]
    ) -> Iterator[tuple[list[int], int]]:
        cuts = [start, *sorted(border for border in borders if start < border < end), end]
        for first, last in itertools.pairwise(cuts):
            yield self._encode_text(text[first:last], quoted), first

    def _encode_text(self, text: str, quoted: dict[str, str]) -> list[int]:
        for stand_in, token in quoted.items():
            text = text.replace(stand_in, token)
        return self.tokenizer.encode(text) if text else []

    def _end_of_turn(self) -> int:
        """The one special token that the template ends an assistant's span with, found by rendering a probe."""
        probe = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        try:
            ids, trained = self.encode(probe)
        except ChatRefused as error:
            raise DataError(Problem(str(error), "chat.template")) from error
        spoken = [token for token, is_trained in zip(ids, trained, strict=True) if is_trained]
        # Some templates mark the line end after the end of turn as the assistant's, too.
        while spoken and not self.tokenizer.backend.decode([spoken[-1]], skip_special_tokens=False).strip():
            spoken.pop()
        special = {number for number, _ in self.tokenizer.special.values()}
        if not spoken or spoken[-1] not in special:
            raise DataError(
                Problem(
                    f"with the tokenizer {self.tokenizer.folder} an assistant's turn ends in no special token",
                    "chat.template",
                    origin="" if self.template_name == "chatml" else self.template_name,
                    expected="an end of turn inside {% generation %} that is one special token of the tokenizer",
                    hint="a model that isn't trained on its end of turn never stops; "
                    f"the tokenizer's special tokens: {', '.join(self.tokenizer.special) or 'none'}",
                )
            )
        return spoken[-1]


def _special_pattern(tokenizer: LoadedTokenizer) -> re.Pattern[str]:
    """Finds special tokens in rendered text, a group each, with the space that they swallow (lstrip, rstrip)."""
    spellings = []
    for token in sorted(tokenizer.special, key=len, reverse=True):
        description = tokenizer.special[token][1]
        before = r"\s*" if description.lstrip else ""
        after = r"\s*" if description.rstrip else ""
        spellings.append(f"{before}({re.escape(token)}){after}")
    return re.compile("|".join(spellings) or r"(?!)")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _replace(value: Any, texts: dict[str, str]) -> Any:
    if not texts:
        return value
    if isinstance(value, str):
        for text, stand_in in texts.items():
            value = value.replace(text, stand_in)
        return value
    if isinstance(value, dict):
        return {key: _replace(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, texts) for item in value]
    return value
