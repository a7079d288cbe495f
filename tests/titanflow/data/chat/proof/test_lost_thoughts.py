"""Thoughts that a template leaves out: the refusal names the settings that train them, and these do."""

from __future__ import annotations

from typing import Any

import model_templates as templates
import pytest
from chat_samples import FORGETFUL, UNMARKED, add_special_tokens, spoken, turns

from titanflow.common.errors import Problem
from titanflow.config.files.template_args import with_defaults
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

THINKS = {"role": "assistant", "content": "Two.", "reasoning_content": "One and one."}
SPELLED = {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\nTwo."}
ONCE = [*turns("How many?"), THINKS]
TWICE = [*ONCE, *turns("Sure?"), {**THINKS, "reasoning_content": "Still so."}]
SWITCH = UNMARKED.replace(
    "{{ m.content or '' }}", "{% if enable_thinking %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content or '' }}"
)
"""Writes thoughts where it is asked to."""


@pytest.fixture(scope="module")
def loaded(tokenizer_folder: Any, tmp_path_factory: Any) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("lost"), templates.TOKENS)


def fault(loaded: LoadedTokenizer, template: str, messages: list[dict[str, Any]], **options: Any) -> Problem | None:
    """What a row's preparation says of it."""
    encoder, conversation = ChatEncoder(loaded, template, "own", **options), Conversation(messages)
    encoded = encoder.encode(conversation)
    if MaskProof(encoder).fault(conversation, encoded):
        return TextProof(encoder).unwritten(conversation, encoded)
    return TextProof(encoder).look(conversation, encoded)[0]


@pytest.mark.parametrize(
    ("template", "messages", "args", "options", "said"),
    [
        (SWITCH, ONCE, {"enable_thinking": True}, {}, "chat.template_args: {enable_thinking: true} trains them"),
        (templates.LFM25, TWICE, {}, {"turns": "each"}, "chat.turns: each trains them"),
        (templates.DEEPSEEK_V31, ONCE, {"thinking": True}, {}, "chat.template_args: {thinking: true} trains them"),
        (
            *(templates.DEEPSEEK_V31, TWICE, {"thinking": True}, {"turns": "each"}),
            "chat.template_args: {thinking: true} and chat.turns: each trains them",
        ),
        (
            *(templates.DEEPSEEK_V31, [*turns("How many?"), SPELLED], {"thinking": True}, {}),
            "chat.template_args: {thinking: true} trains them",
        ),
    ],
)
def test_the_setting_that_is_named_trains_them(
    loaded: LoadedTokenizer,
    template: str,
    messages: list[dict[str, Any]],
    args: dict[str, Any],
    options: dict[str, Any],
    said: str,
) -> None:
    found = fault(loaded, template, messages)
    assert found is not None
    assert found.message == "template own leaves out the assistant's thoughts 'One and one.'"
    assert found.hint.startswith(said)
    given = with_defaults(template, args)
    assert fault(loaded, given, messages, **options) is None
    (trained,) = spoken(ChatEncoder(loaded, given, "own", **options), messages)
    assert ("Still so." if messages is TWICE else "One and one.") in trained


@pytest.mark.parametrize("template", [UNMARKED, SWITCH.replace("m.reasoning", "m.plan"), FORGETFUL])
def test_no_setting_is_named_where_none_helps(loaded: LoadedTokenizer, template: str) -> None:
    found = fault(loaded, template, ONCE)
    assert found is not None
    assert "chat.template: name one that writes message.reasoning_content" in found.hint
    assert "trains them" not in found.hint
    assert "data.leave_out" in found.hint


def test_an_answer_without_thoughts_names_the_argument_that_the_template_asks_for(loaded: LoadedTokenizer) -> None:
    plain = turns("How many?", "Two.")
    opens = templates.ASKS.replace("assistant\n", "assistant\n{{ '<think>\n' if enable_thinking | default(true) }}")
    for template, way in (
        (UNMARKED.replace(templates.ASKS, opens), "chat.template_args: {enable_thinking: false}"),
        (templates.DEEPSEEK_R1, "a template that asks without (chat.template)"),
    ):
        refused = ChatEncoder(loaded, template, "own").encode_batch([Conversation(plain)])[0]
        assert str(refused).endswith(f"has no thoughts; give them as its reasoning_content, or {way}")
