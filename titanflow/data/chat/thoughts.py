"""Thoughts that a generation prompt opens: ``<think>`` stands in the prompt, and the model writes what follows it.

Some templates of reasoning models render an answer without its thoughts, as a later turn's history has it. What such a
model writes is then no part of the rendered text, and is put back behind the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASKED_FOR = ("enable_thinking", "thinking")
"""What templates call the argument that asks for thoughts, or for an answer without."""
_OPENED = re.compile(r"<([\w:]*think\w*)>\s*$")


@dataclass(frozen=True)
class Opening:
    """How a prompt opens a thought: ``tag`` with the blank space behind it, and what closes it."""

    tag: str
    close: str
    written: str

    @classmethod
    def of(cls, prompt: str) -> Opening | None:
        """That of a prompt; None where it opens none."""
        found = _OPENED.search(prompt)
        return cls(f"<{found[1]}>", f"</{found[1]}>", found[0]) if found else None

    def continued(self, prompt: str, text: str, message: Mapping[str, Any]) -> str | None:
        """A text that goes on from its last turn's prompt with that turn's thoughts; None where it has none.

        Args:
            prompt: what asks for the turn; it ends with ``written``.
            text: the whole conversation as rendered, which begins with the prompt less ``written``.
            message: the turn.
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
        """A message's thoughts up to what closes them: of a key of their own, or of the content's beginning."""
        content = message.get("content") or ""
        if thoughts := message.get("reasoning_content"):
            return f"{str(thoughts).strip()}\n"
        if self.close not in content:
            return None
        return str(content).partition(self.close)[0].lstrip().removeprefix(self.tag).lstrip()

    def _between(self, message: Mapping[str, Any]) -> str:
        """The blank space between what closes the thoughts and the answer."""
        if message.get("reasoning_content"):
            return "\n\n"
        answer = str(message["content"]).partition(self.close)[2]
        return answer[: len(answer) - len(answer.lstrip())]
