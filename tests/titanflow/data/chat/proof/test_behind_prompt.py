"""An answer that a template renders behind another history than its prompt's: the row is the prompt and the answer."""

from __future__ import annotations

from typing import Any

import model_templates as templates
import numpy as np
import pytest
from chat_samples import UNMARKED, add_special_tokens, call, turns

from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.behind_prompt import answer_start
from titanflow.data.chat.proof.inference_check import InferenceCheck
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.chat.render import ChatRefused
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

FINAL = UNMARKED.replace(
    "{{ m.content or '' }}", "{{ 'Be brief. ' if loop.last and m.role == 'user' }}{{ m.content or '' }}"
)
"""The last question alone, which no answer follows, has the rules before it."""
MARKED = FINAL.replace("{{ m.role }}\n", "{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}").replace(
    "<|im_end|>\n{% endfor %}{% if add",
    "<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add",
)
THOUGHT = {"reasoning_content": "It asks for the sky."}
CALLED = [
    *turns("Weather in Ulm?"),
    {**call("weather", city="Ulm"), **THOUGHT},
    {"role": "tool", "content": "sun"},
    {"role": "assistant", "content": "Sun.", **THOUGHT},
]


@pytest.fixture(scope="module")
def loaded(tokenizer_folder: Any, tmp_path_factory: Any) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("behind"), templates.TOKENS)


def proved(loaded: LoadedTokenizer, template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """The trained text of a row whose only trained turn is the last, with every proof that its preparation makes."""
    encoder, conversation = ChatEncoder(loaded, template, "own", **options), Conversation(messages)
    encoded = encoder.encode(conversation)
    prompt = encoder.prompt(Conversation(messages[:-1]))
    assert encoded.ids[: len(prompt)].tolist() == prompt
    assert np.flatnonzero(encoded.trained)[0] == len(prompt)
    assert MaskProof(encoder).fault(conversation, encoded) is None
    assert TextProof(encoder).look(conversation, encoded)[0] is None
    assert InferenceCheck(loaded.folder).chat_fault(encoder, conversation, encoded) is None
    return str(loaded.backend.decode(encoded.ids[encoded.trained].tolist(), skip_special_tokens=False))


def test_rules_that_only_a_prompt_has_stand_before_the_answer(loaded: LoadedTokenizer) -> None:
    assert proved(loaded, FINAL, turns("What is it?", "A class.")) == "A class.<|im_end|>"
    several = turns("What is it?", "A class.", "And that?", "A function.")
    with pytest.raises(ChatRefused, match=r"messages\[1\] would be asked for with .*Be brief.*chat\.turns: each"):
        ChatEncoder(loaded, FINAL, "own").encode(Conversation(several))
    for turns_trained in ("each", "last"):
        assert proved(loaded, FINAL, several, turns=turns_trained) == "A function.<|im_end|>"
        assert proved(loaded, MARKED, several, turns=turns_trained) == "A function.<|im_end|>"


def test_a_system_message_that_only_a_last_question_has(loaded: LoadedTokenizer) -> None:
    # As Mistral's: behind an answer it stands nowhere.
    assert proved(loaded, templates.MISTRAL, turns("What is it?", "A class.", system="Be brief.")) == (
        " A class.<|endoftext|>"
    )


def test_thoughts_of_a_call_that_are_dropped_once_an_answer_follows(loaded: LoadedTokenizer) -> None:
    # As gpt-oss's.
    options = {"template": templates.GPT_OSS.replace("strftime_now('%Y-%m-%d')", "'today'"), "turns": "each"}
    answer = "<|channel|>analysis<|said|>It asks for the sky.<|end|><|im_start|>assistant<|channel|>final<|said|>Sun."
    assert proved(loaded, messages=CALLED, **options) == f"{answer}<|return|>"


def test_a_turn_that_the_template_gives_no_header_is_refused(loaded: LoadedTokenizer) -> None:
    # As DeepSeek V3's second call in a conversation.
    nameless = UNMARKED.replace(
        "<|im_start|>{{ m.role }}\n", "{% if not m.tool_calls %}<|im_start|>{{ m.role }}\n{% endif %}"
    )
    messages = [*turns("What is it, in short?", "A class.", "Weather?"), call("weather", city="Ulm")]
    with pytest.raises(ChatRefused, match=r"isn't stable: messages\[3\]"):
        ChatEncoder(loaded, nameless, "own", turns="last").encode(Conversation(messages))


def test_where_an_answer_starts() -> None:
    prompt, text = "rules. Question?<a>", "Question?<a>Answer. Question?<b>"
    last = prompt.index("Question?")
    assert answer_start(prompt, text, last) == len("Question?<a>")
    assert answer_start(prompt, text, last - 1) is None, "the message before the answer isn't the same"
    assert answer_start(prompt, "Question?<b>Answer.", last) is None
    assert answer_start(prompt, "Question?<a>x. Question?<a>Answer.", last) == len("Question?<a>x. Question?<a>")
