"""What a model wrote is read back into the message whose training it answers with."""

from __future__ import annotations

import itertools
import re
from typing import Any

import model_templates as templates
import pytest
from chat_samples import CHATML, UNMARKED, add_special_tokens, turns

from titanflow.config.files.template_args import with_defaults
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.answer_forms import AnswerForms
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

DATE = {"strftime_now": "26 Jul 2024"}
TOLD = {"role": "assistant", "content": "An answer.\n", "reasoning_content": "It asks."}
PLAIN = {"role": "assistant", "content": "An answer.\n"}
OSS = "<|channel|>analysis<|said|>It asks.<|end|><|im_start|>assistant<|channel|>final<|said|>An answer.\n<|return|>"


@pytest.fixture(scope="module")
def loaded(tokenizer_folder: Any, tmp_path_factory: Any) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("forms"), templates.TOKENS)


def forms(loaded: LoadedTokenizer, template: str, **args: Any) -> AnswerForms:
    return AnswerForms(ChatEncoder(loaded, with_defaults(template, args), "own").renderer)


@pytest.mark.parametrize(
    ("template", "args", "said", "message"),
    [
        (CHATML, {}, "An answer.\n<|im_end|>", PLAIN),
        (CHATML, {}, "An answer.\n", PLAIN),
        (UNMARKED, {}, "An answer.\n<|im_end|>\n", PLAIN),
        (templates.GPT_OSS, DATE, OSS, TOLD),
        (templates.GPT_OSS, DATE, "<|channel|>final<|said|>An answer.\n<|return|>", PLAIN),
        (templates.GPT_OSS, DATE, OSS.removesuffix("<|return|>"), TOLD),
        (templates.QWEN3, {}, "<think>\nIt asks.\n</think>\n\nAn answer.\n<|im_end|>", TOLD),
        (templates.QWEN3, {}, "<think>\n\n</think>\n\nAn answer.\n<|im_end|>", PLAIN),
        (templates.QWEN3_THINKING, {}, "It asks.\n</think>\n\nAn answer.\n<|im_end|>", TOLD),
        (templates.DEEPSEEK_R1, {}, "It asks.\n</think>\n\nAn answer.\n<|endoftext|>", TOLD),
        (templates.DEEPSEEK_V31, {"thinking": True}, "It asks.\n</think>An answer.\n<|endoftext|>", TOLD),
        (templates.MISTRAL, {}, " An answer.\n<|endoftext|>", PLAIN),
        (templates.PHI3, {}, "An answer.\n<|end|>", PLAIN),
    ],
)
def test_an_answer_is_read_back(
    loaded: LoadedTokenizer, template: str, args: dict[str, Any], said: str, message: dict[str, str]
) -> None:
    assert forms(loaded, template, **args).message(said) == message


@pytest.mark.parametrize(
    "said", ["An answer.<|return|>", "<|channel|>analysis<|said|>It asks.", "", "to=weather<|call|>"]
)
def test_what_the_template_writes_in_no_form_is_no_message(loaded: LoadedTokenizer, said: str) -> None:
    assert forms(loaded, templates.GPT_OSS, **DATE).message(said) is None


@pytest.mark.parametrize(
    ("template", "said", "shown"),
    [
        (templates.GPT_OSS, OSS, "It asks.\n\nAn answer.\n"),
        (templates.GPT_OSS, "<|channel|>final<|said|>An answer.<|return|>", "An answer."),
        (templates.GPT_OSS, "<|channel|>analysis<|said|>It asks.<|end|><|im_start|>assistant<|chan", "It asks."),
        (templates.GPT_OSS, "Neither.<|end|>Nor.<|return|>", "Neither.\n\nNor."),
        (templates.GPT_OSS, OSS.replace("final", "other"), "It asks.\n\nassistant\n\nother\n\nAn answer.\n"),
        (templates.GPT_OSS, "<|channel|>ana", "ana"),
        (templates.COMMAND_R7B, "<|said|>An answer.<|/said|><|eot|>", "An answer."),
    ],
)
def test_a_person_is_shown_parts_apart_from_each_other_and_as_they_come(
    loaded: LoadedTokenizer, template: str, said: str, shown: str
) -> None:
    of_template = forms(loaded, template, **DATE) if "strftime_now" in template else forms(loaded, template)
    assert of_template.in_parts
    assert of_template.shown(said, is_whole=True) == shown
    tokens = re.findall(f"{of_template.special.pattern}|.", said, re.DOTALL)
    so_far = [of_template.shown("".join(tokens[:count])) for count in range(len(tokens) + 1)]
    assert so_far[0] == ""
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise([*so_far, shown]))


@pytest.mark.parametrize("template", [CHATML, templates.QWEN3, templates.DEEPSEEK_R1, templates.MISTRAL])
def test_an_answer_without_control_tokens_within_is_shown_as_it_is(loaded: LoadedTokenizer, template: str) -> None:
    assert not forms(loaded, template).in_parts


def test_a_template_that_is_refused_has_no_form(loaded: LoadedTokenizer) -> None:
    renderer = ChatEncoder(loaded, CHATML, "own").renderer
    renderer.program.source, renderer.is_append_only = templates.GLM4, False
    assert AnswerForms(renderer).message("An answer.") is None


@pytest.mark.parametrize("name", ["GPT_OSS", "QWEN3", "QWEN3_THINKING", "DEEPSEEK_R1"])
def test_the_next_prompt_is_the_one_that_training_sees(loaded: LoadedTokenizer, name: str) -> None:
    encoder = ChatEncoder(loaded, with_defaults(getattr(templates, name), DATE), name, turns="last")
    chat = [*turns("Q?"), {**TOLD, "content": "An answer."}, *turns("And?"), {**TOLD, "content": "Another."}]
    first = encoder.encode(Conversation(chat[:2]))
    said = loaded.backend.decode(first.ids[first.trained].tolist(), skip_special_tokens=False)
    message = AnswerForms(encoder.renderer).message(said)
    assert message == chat[1]
    prompt = encoder.prompt(Conversation([chat[0], message, chat[2]]))
    assert encoder.encode(Conversation(chat)).ids[: len(prompt)].tolist() == prompt
