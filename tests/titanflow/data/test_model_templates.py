"""What becomes of templates like those of published models: the table in docs/fine-tuning.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import model_templates as templates
import pytest
from chat_samples import add_special_tokens, call, spoken, turns

from titanflow.data.chat import ChatEncoder
from titanflow.data.chat_format import Conversation
from titanflow.data.chat_render import ChatRefused
from titanflow.data.mask_proof import MaskProof
from titanflow.data.template_args import with_defaults
from titanflow.data.tokenizer import LoadedTokenizer
from titanflow.data.turn_ends import TurnEndReader
from titanflow.errors import DataError

PAGE = Path(__file__).parents[3] / "docs" / "fine-tuning.md"
DATE = {"strftime_now": "26 Jul 2024"}
TEXT, EACH = {"tool_arguments": "text"}, {"turns": "last"}
EOS, END = "<|endoftext|>", "<|im_end|>"

ONE, TWO = turns("Q?", "An answer."), turns("Q?", "An answer.", "R?", "Another.")
SYSTEM = turns("Q?", "An answer.", "R?", "Another.", system="Be brief.")
TOOL = {"role": "tool", "content": "sun"}
CALLED = [*turns("Weather?"), call("weather", city="Ulm"), TOOL, {"role": "assistant", "content": "Sun."}]
THOUGHT = [*turns("Q?"), {"role": "assistant", "content": "An answer.", "reasoning_content": "Hm."}]
THOUGHT_TWICE = [*THOUGHT, *turns("R?"), {**THOUGHT[1], "content": "Another."}]


@pytest.fixture(scope="module")
def marked(tokenizer_folder: Path, tmp_path_factory: Any) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("models"), templates.TOKENS)


@pytest.mark.parametrize(
    ("name", "args", "options", "chat", "trained", "ends"),
    [
        ("LLAMA31", {}, {}, SYSTEM, ["An answer.<|eot|>", "Another.<|eot|>"], ["<|eot|>"]),
        ("LLAMA32", {"date_string": "26 Jul 2024"}, {}, TWO, ["An answer.<|eot|>", "Another.<|eot|>"], ["<|eot|>"]),
        ("QWEN25", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("QWEN3", {}, EACH, TWO, [f"<think>\n\n</think>\n\nAnother.{END}"], [END]),
        ("QWEN3", {}, EACH, THOUGHT_TWICE, [f"<think>\nHm.\n</think>\n\nAnother.{END}"], [END]),
        ("QWEN3", {"enable_thinking": False}, EACH, TWO, [f"Another.{END}"], [END]),
        ("QWEN3_INSTRUCT", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("QWEN3_THINKING", {}, EACH, THOUGHT_TWICE, [f"Hm.\n</think>\n\nAnother.{END}"], [END]),
        ("GEMMA2", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("GEMMA3", {}, {}, SYSTEM, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("MISTRAL", {}, {}, TWO, [f" An answer.{EOS}", f" Another.{EOS}"], [EOS]),
        ("MISTRAL", {}, EACH, SYSTEM, [f" Another.{EOS}"], [EOS]),
        ("MISTRAL_SMALL", DATE, {}, TWO, [f"An answer.{EOS}", f"Another.{EOS}"], [EOS]),
        ("PHI3", {}, {}, TWO, ["An answer.<|end|>", f"Another.<|end|>\n{EOS}"], ["<|end|>", EOS]),
        ("PHI35", {}, {}, ONE, [f"An answer.<|end|>\n{EOS}"], [EOS, "<|end|>"]),
        ("PHI4_MINI", {}, {}, TWO, ["An answer.<|end|>", f"Another.<|end|>{EOS}"], ["<|end|>", EOS]),
        ("DEEPSEEK_V3", {}, {}, TWO, [f"An answer.{EOS}", f"Another.{EOS}"], [EOS]),
        (
            *("DEEPSEEK_V3", {}, TEXT, CALLED[:2]),
            *([f'<|calls|>weather\n{{"city": "Ulm"}}<|call|><|/calls|>{EOS}'], [EOS]),
        ),
        ("DEEPSEEK_R1", {}, EACH, THOUGHT_TWICE, [f"Hm.\n</think>\n\nAnother.{EOS}"], [EOS]),
        ("DEEPSEEK_V31", {}, {}, TWO, [f"An answer.{EOS}", f"Another.{EOS}"], [EOS]),
        ("DEEPSEEK_V31", {"thinking": True}, EACH, THOUGHT_TWICE, [f"Hm.\n</think>Another.{EOS}"], [EOS]),
        ("SMOLLM3", DATE, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("SMOLLM3", DATE | {"enable_thinking": False}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("GPT_OSS", DATE, EACH, TWO, ["<|channel|>final<|said|>Another.<|return|>"], ["<|return|>"]),
        (
            *("GPT_OSS", DATE, {}, CALLED),
            [
                ' to=weather<|channel|>commentary<|said|>{"city": "Ulm"}<|call|>',
                "<|channel|>final<|said|>Sun.<|return|>",
            ],
            ["<|call|>", "<|return|>"],
        ),
        ("COMMAND_R", {}, {}, TWO, ["An answer.<|eot|>", "Another.<|eot|>"], ["<|eot|>"]),
        ("LFM2", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
    ],
)
def test_these_are_handled(
    marked: LoadedTokenizer,
    name: str,
    args: dict[str, Any],
    options: dict[str, Any],
    chat: list[dict[str, Any]],
    trained: list[str],
    ends: list[str],
) -> None:
    encoder = ChatEncoder(marked, with_defaults(getattr(templates, name), args), name, **options)
    conversation = Conversation(chat)
    assert spoken(encoder, conversation) == trained
    encoded = encoder.encode(conversation)
    assert MaskProof(encoder).fault(conversation, encoded) is None
    found = TurnEndReader(marked).read(conversation, encoded)
    assert sorted(map(str, map(marked.backend.id_to_token, found.ends))) == sorted(ends)


@pytest.mark.parametrize(
    ("name", "args", "options", "chat", "refusal"),
    [
        ("LLAMA32", {}, {}, ONE, r"writes the date of today.*chat\.template_args.*date_string"),
        ("QWEN3", {}, {}, TWO, r"changes messages\[1\] when more follows; chat\.turns: last .*chat\.turns: each"),
        ("QWEN3_THINKING", {}, {}, THOUGHT_TWICE, r"isn't stable: messages\[1\].*chat\.turns: each"),
        ("GEMMA2", {}, {}, SYSTEM, r"refuses it: no system here"),
        ("GEMMA3", {}, {}, CALLED, r"refuses it: user and assistant must take turns"),
        ("MISTRAL", {}, {}, SYSTEM, r"isn't stable: messages\[2\].*chat\.turns: each"),
        ("MISTRAL_SMALL", {}, {}, ONE, r"writes the date of today.*strftime_now"),
        ("MISTRAL_SMALL", DATE, {}, CALLED, r"refuses it: an id has 9 letters"),
        ("DEEPSEEK_V3", {}, {}, CALLED, r"can only concatenate str .*chat\.tool_arguments: text"),
        ("DEEPSEEK_V31", {}, {}, CALLED[:2], r"can only concatenate str .*chat\.tool_arguments: text"),
        ("DEEPSEEK_R1", {}, {}, ONE, r"with an opened <think>, and it has no thoughts; give them as its reasoning"),
        ("DEEPSEEK_R1", {}, {}, THOUGHT_TWICE, r"isn't stable: messages\[1\].*chat\.turns: each"),
        ("SMOLLM3", {}, {}, ONE, r"writes the date of today.*strftime_now"),
        ("GPT_OSS", DATE, {}, TWO, r"changes messages\[1\] when more follows; .*chat\.turns: each"),
        ("GLM4", {}, {}, ONE, r"ends messages\[1\] with no special token; .*chat\.template"),
        ("COMMAND_R", {}, {}, CALLED, r"refuses it: user and assistant must take turns"),
        ("COMMAND_R_TOOLS", {}, {}, ONE, r"ignores add_generation_prompt"),
    ],
)
def test_these_are_refused_and_the_refusal_says_the_way_out(
    marked: LoadedTokenizer,
    name: str,
    args: dict[str, Any],
    options: dict[str, Any],
    chat: list[dict[str, Any]],
    refusal: str,
) -> None:
    with pytest.raises((ChatRefused, DataError), match=re.compile(refusal, re.DOTALL)):
        ChatEncoder(marked, with_defaults(getattr(templates, name), args), name, **options).encode(Conversation(chat))


def test_the_page_has_a_row_for_each() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("### Templates of published models")[2].partition("### Against TRL")[0]
    rows = re.findall(r"^\| ([A-Z][^|]*|gpt-oss) \|", table, re.MULTILINE)
    named = {word for row in rows for word in re.split(r", | ", row)}
    assert {
        "Llama",
        "Qwen2.5",
        "Qwen3",
        "Instruct",
        "Thinking",
        "Gemma",
        "Mistral",
        "Small",
        "Phi-3",
        "Phi-3.5",
    } <= named
    assert {"Phi-4-mini", "V3", "R1", "V3.1", "SmolLM3", "gpt-oss", "GLM-4", "Command-R", "LFM2"} <= named
