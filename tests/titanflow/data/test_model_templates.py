"""What becomes of templates like those of published models: the table in docs/fine-tuning.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import model_templates as templates
import pytest
from chat_samples import add_special_tokens, call, spoken, turns

from titanflow.common.errors import DataError
from titanflow.config.files.template_args import with_defaults
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.call_forms import with_ids
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.chat.render import ChatRefused
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer
from titanflow.data.tokenizer.turn_ends import TurnEndReader

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

THOUGHT_CALL = [*CALLED[:1], {**CALLED[1], "reasoning_content": "Hm."}, TOOL, {**CALLED[3], "reasoning_content": "Hm."}]
CALL_TWICE = [*CALLED, *turns("Once more?"), CALLED[1]]
CALLS = [*CALLED[:1], {**CALLED[1], "tool_calls": CALLED[1]["tool_calls"] * 2}]
CALL_WITH_ID = '{"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}, "id": "call00000"}'
ANALYSIS = "<|channel|>analysis<|said|>Hm.<|end|><|im_start|>assistant"


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
        ("MISTRAL", {}, {}, SYSTEM[:3], [f" An answer.{EOS}"], [EOS]),
        ("MISTRAL_SMALL", DATE, {}, with_ids(CALLED)[:2], [f"{CALL_WITH_ID}{EOS}"], [EOS]),
        ("MISTRAL_SMALL", DATE, {}, TWO, [f"An answer.{EOS}", f"Another.{EOS}"], [EOS]),
        ("PHI3", {}, {}, TWO, ["An answer.<|end|>", f"Another.<|end|>\n{EOS}"], ["<|end|>", EOS]),
        ("PHI35", {}, {}, ONE, [f"An answer.<|end|>\n{EOS}"], [EOS, "<|end|>"]),
        ("PHI4_FIRST", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("PHI4", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
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
        (
            "COMMAND_R7B",
            {},
            {},
            TWO,
            ["<|said|>An answer.<|/said|><|eot|>", "<|said|>Another.<|/said|><|eot|>"],
            ["<|eot|>"],
        ),
        ("LFM2_FIRST", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("LFM2", {}, {}, TWO, [f"An answer.{END}", f"Another.{END}"], [END]),
        ("LFM25", {}, EACH, THOUGHT_TWICE, [f"<think>Hm.</think>Another.{END}"], [END]),
        (
            *("GPT_OSS", DATE, EACH, THOUGHT_CALL),
            [f"{ANALYSIS}<|channel|>final<|said|>Sun.<|return|>"],
            ["<|return|>"],
        ),
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
    found = TurnEndReader(encoder).read(encoded)
    assert sorted(map(str, map(marked.backend.id_to_token, found.ends))) == sorted(ends)


@pytest.mark.parametrize(
    ("name", "args", "options", "chat", "refusal"),
    [
        ("LLAMA32", {}, {}, ONE, r"writes the date of today.*chat\.template_args.*date_string"),
        ("LLAMA31", {}, {}, CALLS, r"refuses it: one call at once"),
        ("QWEN3", {}, {}, TWO, r"changes messages\[1\] when more follows; chat\.turns: last .*chat\.turns: each"),
        ("QWEN3_THINKING", {}, {}, THOUGHT_TWICE, r"isn't stable: messages\[1\].*chat\.turns: each"),
        ("GEMMA2", {}, {}, SYSTEM, r"refuses it: no system here"),
        ("GEMMA3", {}, {}, CALLED, r"refuses it: user and assistant must take turns"),
        ("MISTRAL", {}, {}, SYSTEM, r"isn't stable: messages\[2\].*chat\.turns: each"),
        ("MISTRAL_SMALL", {}, {}, ONE, r"writes the date of today.*strftime_now"),
        (
            "MISTRAL_SMALL",
            DATE,
            {},
            CALLED,
            r"refuses it: an id has 9 letters; it takes calls that have an `id`",
        ),
        ("DEEPSEEK_V3", {}, {}, CALLED, r"can only concatenate str .*chat\.tool_arguments: text"),
        ("DEEPSEEK_V3", {}, TEXT, CALL_TWICE, r"isn't stable: messages\[5\] would be asked for with .*<\|assistant\|>"),
        ("DEEPSEEK_V31", {}, {}, CALLED[:2], r"can only concatenate str .*chat\.tool_arguments: text"),
        ("DEEPSEEK_R1", {}, {}, ONE, r"with <think>, and the message has no thoughts; give them as its reasoning"),
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


@pytest.mark.parametrize("name", ["PHI3", "PHI35", "PHI4", "PHI4_FIRST", "SMOLLM3", "LFM2_FIRST"])
def test_these_write_no_calls_and_rows_with_some_are_refused_as_such(marked: LoadedTokenizer, name: str) -> None:
    template, args = getattr(templates, name), {"strftime_now": "today"}
    encoder = ChatEncoder(marked, with_defaults(template, args) if "strftime_now" in template else template, name)
    conversation = Conversation(CALLED)
    encoded = encoder.encode(conversation)
    assert MaskProof(encoder).fault(conversation, encoded)
    fault = TextProof(encoder).unwritten(conversation, encoded)
    assert fault is not None
    assert fault.message == f"template {name} leaves out the call of weather in messages[1]"
    assert "chat.template: chatml" in fault.hint


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
    assert {"Phi-4", "Nemo", "Command-R7B", "LFM2.5", "GLM-4.5"} <= named
