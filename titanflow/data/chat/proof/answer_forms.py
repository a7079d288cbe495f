"""Reads a model's answer back into the message that its template would write so: thoughts and content.

A template may write an answer in parts, with control tokens between them. Without these, the answer would be a history
that training never saw. So the template renders an answer with thoughts and one without, and the model's answer is
matched against these forms. A person sees the parts alone, without the names that the template gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from titanflow.data.chat.keys import THOUGHTS
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.render import ChatRefused, ChatRenderer

_QUESTION = {"role": "user", "content": "question"}
# Private-use characters that stand for the parts of an answer.
_CONTENT, _THOUGHTS = {"content": "\ue000"}, {THOUGHTS[0]: "\ue001"}
_STAND_INS = re.compile("[\ue000\ue001]")
_BETWEEN_PARTS = "\n\n"


@dataclass(frozen=True)
class Form:
    """One way to write an answer: ``whole`` has a group for each part, ``before`` the template's text before each."""

    whole: re.Pattern[str]
    before: list[str]


class AnswerForms:
    """The forms in which a renderer's template writes an answer."""

    def __init__(self, renderer: ChatRenderer) -> None:
        self.special = renderer.special
        self._end = re.compile(rf"(?:(?:{self.special.pattern})\s*)+\Z")
        self.forms = list(self._forms(renderer))

    def message(self, said: str) -> dict[str, str] | None:
        """The message of an answer, given with its control tokens; None if it has none of the forms."""
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
        """The text that a person sees of an answer: its parts, with blank lines between them.

        ``said`` is the answer so far, with its control tokens; ``is_whole`` says that it has ended. If it has no known
        form, it is shown without its control tokens. As it goes on, the shown text only grows at the end.
        """
        for form in self.forms:
            first = form.before[0]
            if said.startswith(first):
                return _BETWEEN_PARTS.join(filter(str.strip, self._parts(said[len(first) :], form.before[1:])))
            if first.startswith(said) and not is_whole:
                return ""
        return _BETWEEN_PARTS.join(filter(str.strip, self.special.split(said)))

    def _parts(self, rest: str, before: list[str]) -> list[str]:
        """The texts of the parts; ``rest`` begins with the first, ``before`` has the text before each of the others."""
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
                # The words of an incomplete header aren't shown: they are no answer.
                return parts if text.startswith(rest) else [*parts, *self.special.split(rest)]
            rest = rest[len(text) :]
        return [*parts, *self.special.split(rest)]

    def _forms(self, renderer: ChatRenderer) -> Iterator[Form]:
        for parts in (_CONTENT | _THOUGHTS, _CONTENT):
            try:
                rendered = renderer.render(Conversation([_QUESTION, {"role": "assistant", **parts}]))
            except ChatRefused:
                continue
            # The answer begins at the prompt's end, since marks may begin earlier and split the answer.
            text = self._end.sub("", rendered.text[rendered.starts[0] : rendered.spans[-1][1]])
            form = re.escape(text)
            for name, stand_in in parts.items():
                form = form.replace(stand_in, f"(?P<{name}>.*?)", 1)
            yield Form(re.compile(form, re.DOTALL), _STAND_INS.split(text)[:-1])
