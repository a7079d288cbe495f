"""Reads what a model wrote back into the message that its template would write so: thoughts and content.

A template may write an answer in parts, with control tokens between them. As one text, without them, it is no history
that training saw. So the template is asked how it writes an answer, with thoughts and without, and what the model wrote
is held against these forms. A person is shown the parts by themselves, without the names that the template gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from titanflow.data.chat.keys import THOUGHTS
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.render import ChatRefused, ChatRenderer

_QUESTION = {"role": "user", "content": "question"}
# Private-use characters stand for what an answer says.
_CONTENT, _THOUGHTS = {"content": "\ue000"}, {THOUGHTS[0]: "\ue001"}
_STAND_INS = re.compile("[\ue000\ue001]")
_BETWEEN_PARTS = "\n\n"


@dataclass(frozen=True)
class Form:
    """One way to write an answer: ``whole`` has a group for each part, ``before`` is what stands before each."""

    whole: re.Pattern[str]
    before: list[str]


class AnswerForms:
    """The forms in which a template writes an answer.

    Args:
        renderer: renders with the template.
    """

    def __init__(self, renderer: ChatRenderer) -> None:
        self.special = renderer.special
        self._end = re.compile(rf"(?:(?:{self.special.pattern})\s*)+\Z")
        self.forms = list(self._forms(renderer))

    def message(self, said: str) -> dict[str, str] | None:
        """The message of an answer with its control tokens; None where the template writes none so."""
        said = self._end.sub("", said)
        for form in self.forms:
            found = form.whole.fullmatch(said)
            if found and not any(map(self.special.search, found.groupdict().values())):
                told = {name: text for name, text in found.groupdict().items() if text}
                return {"role": "assistant", "content": "", **told}
        return None

    @property
    def in_parts(self) -> bool:
        """Whether control tokens stand before an answer's text, or within it."""
        return any(self.special.search(text) for form in self.forms for text in form.before)

    def shown(self, said: str, is_whole: bool = False) -> str:
        """What a person reads of an answer: its parts, apart from one another.

        What is said in no form stands there without its control tokens. As an answer goes on, what is shown grows at
        its end alone.

        Args:
            said: the answer so far, with its control tokens.
            is_whole: whether it has ended.
        """
        for form in self.forms:
            first = form.before[0]
            if said.startswith(first):
                return _BETWEEN_PARTS.join(filter(str.strip, self._parts(said[len(first) :], form.before[1:])))
            if first.startswith(said) and not is_whole:
                return ""
        return _BETWEEN_PARTS.join(filter(str.strip, self.special.split(said)))

    def _parts(self, rest: str, before: list[str]) -> list[str]:
        """The texts of what was said from the first part on; ``before`` is what stands before each of the others."""
        parts = []
        for text in before:
            end = self.special.search(text)
            found = self.special.search(rest)
            if end is None or found is None:
                break
            parts.append(rest[: found.start()])
            rest = rest[found.start() :]
            text = text[end.start() :]
            if not rest.startswith(text):
                # The words of a header that isn't whole yet are no answer.
                return parts if text.startswith(rest) else [*parts, *self.special.split(rest)]
            rest = rest[len(text) :]
        return [*parts, *self.special.split(rest)]

    def _forms(self, renderer: ChatRenderer) -> Iterator[Form]:
        for parts in (_CONTENT | _THOUGHTS, _CONTENT):
            try:
                rendered = renderer.render(Conversation([_QUESTION, {"role": "assistant", **parts}]))
            except ChatRefused:
                continue
            # From the prompt's end on: marks may begin before it, and part an answer.
            text = self._end.sub("", rendered.text[rendered.starts[0] : rendered.spans[-1][1]])
            form = re.escape(text)
            for name, stand_in in parts.items():
                form = form.replace(stand_in, f"(?P<{name}>.*?)", 1)
            yield Form(re.compile(form, re.DOTALL), _STAND_INS.split(text)[:-1])
