"""Finds settings with which a template writes the thoughts that it leaves out, by trying them."""

from __future__ import annotations

from titanflow.config.files.template_args import names_of, with_defaults
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.each_turn import until
from titanflow.data.chat.render import ChatRefused, ChatRenderer
from titanflow.data.chat.thoughts import ASKED_FOR


def way_to_thoughts(renderer: ChatRenderer, conversation: Conversation, turn: int, thoughts: str) -> str:
    """The settings with which a turn's ``thoughts`` are trained; empty if none of those known helps.

    ``turn`` is the number of the assistant's message.
    """
    source = renderer.program.source
    asked_for = [name for name in ASKED_FOR if name in names_of(source)]
    answers = sum(message["role"] == "assistant" for message in conversation.messages)
    each = ["chat.turns: each"] if renderer.turns == "all" and answers > 1 else []
    for name in ["", *asked_for]:
        template = with_defaults(source, {name: True}) if name else source
        if _is_written(renderer, template, until(conversation, turn), thoughts.strip()):
            return " and ".join([f"chat.template_args: {{{name}: true}}"] * bool(name) + each)
    return ""


def _is_written(renderer: ChatRenderer, template: str, conversation: Conversation, thoughts: str) -> bool:
    other = ChatRenderer(
        *(template, renderer.name, renderer.special, renderer.program.variables, "each", renderer.tool_arguments)
    )
    try:
        rendered = other.render(conversation)
    except ChatRefused:
        return False
    return any(thoughts in rendered.text[start:end] for start, end in rendered.spans)
