"""Runs a chat template, which renders conversations or refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.config.files.chat_template import marks_generation
from titanflow.config.files.template_args import A_DATE, with_today_marked
from titanflow.data.chat.proof.call_forms import Messages, accepted_form

Span = tuple[int, int]
Marked = tuple[str, list[Span]]
"""A text, and the spans of it that ``{% generation %}`` marks."""


class ChatRefused(ValueError):
    """A conversation that can't be rendered or trained on."""


class TemplateProgram:
    """One template, from its Jinja source; ``name`` is its name in messages, ``variables`` are its other inputs."""

    def __init__(self, template: str, name: str, variables: Mapping[str, str]) -> None:
        self.source = with_today_marked(template)
        self.name = name
        self.variables = variables
        self.is_marked = marks_generation(template)

    def text(self, messages: Messages, tools: Any, add_generation_prompt: bool = False) -> Marked:
        return self.texts([messages], tools, add_generation_prompt)[0]

    def texts(self, conversations: list[Messages], tools: Any, add_generation_prompt: bool = False) -> list[Marked]:
        """Renders conversations.

        Raises:
            ChatRefused: the template fails on one of them, or writes today's date.
        """
        try:
            found = self._run(conversations, tools, add_generation_prompt)
        except Exception as error:  # any exception is the program's answer to these messages
            longest = max(conversations, key=len)
            form = accepted_form(longest, lambda other: self._accepts(other, tools, add_generation_prompt))
            raise ChatRefused(f"template {self.name} refuses it: {error}{form and f'; {form}'}") from error
        if any(A_DATE in text for text, _ in found):
            hint = "chat.template_args gives it one: {date_string: …} where it asks for that, else {strftime_now: …}"
            raise ChatRefused(f"template {self.name} writes the date of today into it; {hint}")
        return found

    def _accepts(self, messages: Messages, tools: Any, add_generation_prompt: bool) -> bool:
        try:
            self._run([messages], tools, add_generation_prompt)
        except Exception:
            return False
        return True

    def _run(self, conversations: list[Messages], tools: Any, add_generation_prompt: bool) -> list[Marked]:
        from transformers.utils.chat_template_utils import render_jinja_template

        marked = self.is_marked and not add_generation_prompt
        texts, spans = render_jinja_template(
            conversations,
            tools=tools,
            chat_template=self.source,
            return_assistant_tokens_mask=marked,
            add_generation_prompt=add_generation_prompt,
            **self.variables,
        )
        return list(zip(texts, spans if marked else [[] for _ in texts], strict=True))
