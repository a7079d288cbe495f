"""Reads what a model wrote back into the message that its template would write so: thoughts and content.

A template may write an answer in parts, with control tokens between them. As one text, without them, it is no history
that training saw. So the template is asked how it writes an answer, with thoughts and without, and what the model wrote
is held against these forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from titanflow.data.chat_format import Conversation
from titanflow.data.chat_keys import THOUGHTS
from titanflow.data.chat_render import ChatRefused, ChatRenderer

_QUESTION = {"role": "user", "content": "question"}
# Private-use characters stand for what an answer says.
_CONTENT, _THOUGHTS = {"content": "\ue000"}, {THOUGHTS[0]: "\ue001"}


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
            found = form.fullmatch(said)
            if found and not any(map(self.special.search, found.groupdict().values())):
                told = {name: text for name, text in found.groupdict().items() if text}
                return {"role": "assistant", "content": "", **told}
        return None

    def _forms(self, renderer: ChatRenderer) -> Iterator[re.Pattern[str]]:
        for parts in (_CONTENT | _THOUGHTS, _CONTENT):
            try:
                rendered = renderer.render(Conversation([_QUESTION, {"role": "assistant", **parts}]))
            except ChatRefused:
                continue
            # From the prompt's end on: marks may begin before it, and part an answer.
            form = re.escape(self._end.sub("", rendered.text[rendered.starts[0] : rendered.spans[-1][1]]))
            for name, stand_in in parts.items():
                form = form.replace(stand_in, f"(?P<{name}>.*?)", 1)
            yield re.compile(form, re.DOTALL)
