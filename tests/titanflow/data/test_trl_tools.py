"""Chats with tools under the templates that TRL marks for training: where both take a row, its labels are TRL's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import add_special_tokens, turns

from titanflow.config.files.template_args import with_defaults
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.tokenizer.tokenizer import SPECIAL_TOKENS, load_tokenizer

CONTROL = re.compile(r"<\|[A-Za-z0-9_/]+\|>")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"The {name} of a place.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
    for name in ("weather", "height")
]


def calling(*names: str, content: str = "", **more: Any) -> dict[str, Any]:
    calls = [
        {
            "id": f"call{number:05}",
            "type": "function",
            "function": {"name": name, "arguments": {"place": "Köln", "days": 2}},
        }
        for number, name in enumerate(names)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls, **more}


def result(number: int, **said: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "content": json.dumps(said)}


def answer(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CHATS: dict[str, list[dict[str, Any]]] = {
    "a call": [*turns("Weather?"), calling("weather"), result(0, sky="blue"), answer("Blue.")],
    "text beside a call": [*turns("Weather?"), calling("weather", content="I look."), result(0, sky=1), answer("One.")],
    "two calls": [*turns("Both?"), calling("weather", "height"), result(0, a=1), result(1, b=2), answer("One, two.")],
    "one after another": [
        *turns("Both?", system="Be brief."),
        *(calling("weather"), result(0, a=1), calling("height"), result(0, b="größe"), answer("So.")),
    ],
    "then a question": [
        *turns("Hi", "Hello.", "And?"),
        calling("height"),
        result(0, m=9),
        *turns("", "Nine.", "x", "y")[1:],
    ],
    "no call": [*turns("Hi", "Hello.", "More", "Bye.")],
    "thoughts": [
        *turns("Weather?"),
        calling("weather", reasoning_content="I ask."),
        *(result(0, sky="blue"), answer("Blue.", reasoning_content="It says so.")),
    ],
}
FAMILIES = {
    # Of 17 trained turns: equal; taken by both with another history; refused here for what the template leaves out.
    "glm4moe": (17, 0, 0),
    "gptoss": (14, 2, 1),
    "lfm2_v2": (15, 0, 2),
    "qwen2_5": (15, 0, 2),
    "qwen3": (17, 0, 0),
    "qwen3_5_think": (17, 0, 0),
    "qwen3_instruct_2507": (15, 0, 2),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_labels_of_calls_are_those_of_trl(tokenizer_folder: Path, tmp_path: Path, family: str) -> None:
    import trl
    from transformers import AutoTokenizer

    template = (Path(trl.__file__).parent / "chat_templates" / f"{family}_training.jinja").read_text()
    add_special_tokens(tokenizer_folder, tmp_path, tuple(sorted(set(CONTROL.findall(template)) - set(SPECIAL_TOKENS))))
    template = with_defaults(template, {"strftime_now": "26 Jul 2024"}) if "strftime_now" in template else template
    encoder = ChatEncoder(load_tokenizer(tmp_path), template, family, turns="last")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    equal = apart = refused = 0
    for name, chat in CHATS.items():
        for turn in [number for number, message in enumerate(chat) if message["role"] == "assistant"]:
            conversation = Conversation(chat[: turn + 1], TOOLS)
            encoded = encoder.encode(conversation)
            proof, mask = TextProof(encoder), MaskProof(encoder).fault(conversation, encoded)
            if fault := proof.unwritten(conversation, encoded) if mask else proof.look(conversation, encoded)[0]:
                assert "leaves out" in fault.message
                refused += 1
                continue
            assert mask is None
            theirs = tokenizer.apply_chat_template(
                *(encoder.renderer.given(conversation), TOOLS),
                chat_template=template,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            asked = len(encoder.prompt(Conversation(chat[:turn], TOOLS)))
            labels = np.array(theirs["assistant_masks"], bool)
            # The prompt and the turns before are never trained here: a model is asked with them.
            labels[:asked] = False
            if theirs["input_ids"] == encoded.ids.tolist():
                assert encoded.trained.tolist() == labels.tolist(), (name, turn)
                equal += 1
            else:
                apart += 1
    assert (equal, apart, refused) == FAMILIES[family]
