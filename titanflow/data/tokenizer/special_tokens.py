"""Finds a tokenizer's special tokens in a text, as the ``tokenizers`` library does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken

_BLANK_BEHIND = re.compile(r"\s*")


@dataclass(frozen=True)
class Found:
    """A special token in a text, from ``start`` to ``end`` in characters, with the blanks that it swallows."""

    text: str
    start: int
    end: int


class SpecialTokens:
    """The special tokens of one tokenizer; ``pattern`` finds any of them, of two that begin alike the longer one."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self.tokens = tokens
        # Without a group for each token: a thousand groups took five minutes for a million characters.
        spelled = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
        self.pattern = re.compile(spelled or r"(?!)")

    def find(self, text: str) -> Iterator[Found]:
        previous = 0
        for match in self.pattern.finditer(text):
            token, (start, end) = self.tokens[match.group()], match.span()
            if token.single_word and _stands_in_a_word(text, start, end):
                continue
            if token.lstrip:
                start -= len(text[previous:start]) - len(text[previous:start].rstrip())
            if token.rstrip:
                end = _BLANK_BEHIND.match(text, end).end()  # type: ignore[union-attr]
            yield Found(match.group(), start, end)
            previous = end


def _stands_in_a_word(text: str, start: int, end: int) -> bool:
    return bool(re.match(r"\w", text[start - 1 : start]) or re.match(r"\w", text[end : end + 1]))
