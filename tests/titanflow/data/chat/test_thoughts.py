"""A prompt that opens a thought: the thoughts are trained, the opening isn't."""

from __future__ import annotations

from typing import Any

import pytest
from chat_samples import chat, spoken, turns

from titanflow.common.errors import DataError
from titanflow.config.files.template_args import with_defaults
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.render import ChatRefused
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

HEADER = "<|im_start|>assistant\n"
OPENED = HEADER + "<think>\n"
ASKS = "{% if add_generation_prompt %}" + OPENED + "{% endif %}"

DROPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
) + ASKS
"""No answer keeps its thoughts, the last one neither (as DeepSeek R1's)."""

KEEPS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ (m.reasoning_content or '') }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip() }}<|im_end|>{% endfor %}"
) + ASKS
"""The last answer keeps the thoughts of a key of their own (as Qwen3's)."""

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}" + ASKS
"""Answers are as they are written."""

CLOSES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '</think>' if m.role == 'assistant' }}"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
"""Each answer begins with the end of thoughts that it lost, asked for in one of two ways (as DeepSeek V3.1's)."""

DROPS_MARKED = DROPS.replace(
    "{{ m.content.split('</think>')[-1] }}<|im_end|>",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content.split('</think>')[-1] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}",
)


def thought(content: str, **keys: Any) -> Conversation:
    return Conversation([*turns("Q", "A", "B"), {"role": "assistant", "content": content, **keys}])


@pytest.mark.parametrize("template", [DROPS, PLAIN, DROPS_MARKED], ids=["drops", "plain", "marked"])
@pytest.mark.parametrize(
    ("content", "trained"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Hm.\n</think>\n\nYes.<|im_end|>"),
        ("<think>Hm.</think>Yes.", "Hm.</think>Yes.<|im_end|>"),
        ("Hm.\n</think>\n\nYes.", "Hm.\n</think>\n\nYes.<|im_end|>"),
        ("<think></think>Yes.", "</think>Yes.<|im_end|>"),
    ],
)
def test_thoughts_of_the_content_follow_the_prompt(
    tokenizer: LoadedTokenizer, template: str, content: str, trained: str
) -> None:
    encoder, conversation = ChatEncoder(tokenizer, template, turns="last"), thought(content)
    assert spoken(encoder, conversation) == [trained]
    encoded = encoder.encode(conversation)
    prompt = encoder.prompt(Conversation(conversation.messages[:-1]))
    assert encoded.ids[: len(prompt)].tolist() == prompt
    assert not encoded.trained[: len(prompt)].any()
    assert str(tokenizer.backend.decode(prompt, skip_special_tokens=False)).endswith(OPENED)
    assert MaskProof(encoder).fault(conversation, encoded) is None


@pytest.mark.parametrize("template", [DROPS, KEEPS, DROPS_MARKED], ids=["drops", "keeps", "marked"])
def test_thoughts_of_a_key_of_their_own_follow_it_too(tokenizer: LoadedTokenizer, template: str) -> None:
    encoder, conversation = ChatEncoder(tokenizer, template, turns="last"), thought("Yes.", reasoning_content="Hm.")
    assert spoken(encoder, conversation) == ["Hm.\n</think>\n\nYes.<|im_end|>"]
    assert MaskProof(encoder).fault(conversation, encoder.encode(conversation)) is None


def test_an_end_of_dropped_thoughts_comes_once(tokenizer: LoadedTokenizer) -> None:
    conversation = thought("<think>Hm.</think>Yes.")
    encoder = ChatEncoder(tokenizer, with_defaults(CLOSES, {"thinking": True}), turns="last")
    assert spoken(encoder, conversation) == ["Hm.</think>Yes.<|im_end|>"]
    # Asked without thoughts, all turns are stable.
    assert spoken(ChatEncoder(tokenizer, CLOSES), chat("Q", "A", "B", "C")) == ["A<|im_end|>", "C<|im_end|>"]


@pytest.mark.parametrize("template", [DROPS, PLAIN], ids=["drops", "plain"])
def test_an_answer_without_thoughts_is_refused_with_the_ways_out(tokenizer: LoadedTokenizer, template: str) -> None:
    encoder = ChatEncoder(tokenizer, template, turns="last")
    with pytest.raises(ChatRefused, match=r"messages\[3\] with <think>, and the message has no thoughts; .*reasoning"):
        encoder.encode(thought("Yes."))


def test_earlier_turns_that_lose_their_thoughts_name_the_turns_that_can_be_trained(tokenizer: LoadedTokenizer) -> None:
    both = Conversation(turns("Q", "<think>\nHm.\n</think>\n\nA", "B", "<think>\nSo.\n</think>\n\nC"))
    with pytest.raises(ChatRefused, match=r"isn't stable.*chat\.turns: last .*chat\.turns: each"):
        ChatEncoder(tokenizer, DROPS).encode(both)
    assert spoken(ChatEncoder(tokenizer, DROPS, turns="last"), both) == ["So.\n</think>\n\nC<|im_end|>"]


def test_a_turn_of_another_header_is_no_thought(tokenizer: LoadedTokenizer) -> None:
    other = DROPS.replace("<|im_start|>{{ m.role }}\n", "<|im_start|>{{ m.role }}: ")
    with pytest.raises((ChatRefused, DataError), match="isn't stable"):
        ChatEncoder(tokenizer, other, turns="last").encode(thought("<think>\nHm.\n</think>\n\nYes."))
