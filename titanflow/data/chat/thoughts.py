"""Thoughts that a generation prompt opens: ``<think>`` ends the prompt, and the model goes on from there.

Some templates of reasoning models render an answer without its thoughts, as in a later turn's history. The thoughts are
then missing from the rendered text, though the model must write them: they are put back behind the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASKED_FOR = ("enable_thinking", "thinking")
"""Names of the template argument that turns thoughts on and off."""
_OPENED = re.compile(r"<([\w:]*think\w*)>\s*$")


@dataclass(frozen=True)
class Opening:
    """How a prompt opens a thought: its ``tag``, the tag that closes it, and the tag ``written`` with its blanks."""

    tag: str
    close: str
    written: str

    @classmethod
    def of(cls, prompt: str) -> Opening | None:
        found = _OPENED.search(prompt)
        return cls(f"<{found[1]}>", f"</{found[1]}>", found[0]) if found else None

    def continued(self, prompt: str, text: str, message: Mapping[str, Any]) -> str | None:
        """The text of a conversation whose last turn begins with its thoughts; None if it has none.

        ``prompt`` is the last turn's and ends with ``written``. ``text`` is the whole conversation as rendered; it
        begins with the prompt less ``written``. ``message`` is the last turn.
        """
        said = text[len(prompt) - len(self.written) :]
        if said.startswith(self.tag):
            return prompt + said.removeprefix(self.tag).lstrip() if self.close in said else None
        thoughts = self._thoughts(message)
        if thoughts is None:
            return None
        if said.startswith(self.close):
            # The template writes that the thoughts are over, and drops them.
            return prompt + thoughts + said
        if self.close in said:
            return prompt + said.lstrip()
        between = "" if said[:1].isspace() else self._between(message)
        return f"{prompt}{thoughts}{self.close}{between}{said}"

    def _thoughts(self, message: Mapping[str, Any]) -> str | None:
        """A message's thoughts, from their own key or from the beginning of its content, without the closing tag."""
        content = message.get("content") or ""
        if thoughts := message.get("reasoning_content"):
            return f"{str(thoughts).strip()}\n"
        if self.close not in content:
            return None
        return str(content).partition(self.close)[0].lstrip().removeprefix(self.tag).lstrip()

    def _between(self, message: Mapping[str, Any]) -> str:
        """The blanks between the closing tag and the answer."""
        if message.get("reasoning_content"):
            return "\n\n"
        answer = str(message["content"]).partition(self.close)[2]
        return answer[: len(answer) - len(answer.lstrip())]
