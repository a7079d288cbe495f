"""The tokens that end trained turns are read from the rows; templates end turns with more than one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_samples import add_special_tokens, call, turns
from test_tokenise_chats import Writer, source

from titanflow.common.errors import DataError
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer

TOKENS = ("<|end|>", "<|return|>", "<|call|>", "<|done|>")

PHI = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
"""Closes the whole conversation with the end of text."""

HARMONY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.tool_calls %} calls {{ m.tool_calls[0].function.name }}<|call|>"
    "{% elif m.role == 'assistant' %}\n{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{% else %}\n{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
"""Ends a call otherwise than an answer, and the last answer otherwise than those before it."""

NESTED_CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}<|call|>{% endfor %}"
    "{% if m.tool_calls %}<|done|>{% endif %}"
    "{{ eos_token if m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Closes each call, then all calls, then the turn, with the end of text."""

CALLS = "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}<|call|>{% endfor %}"
PARTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{{ '<|done|>' + eos_token if m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Closes an answer's text before it closes the turn, with the end of text, as Command-R7B's."""

SEGMENTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{% if m.plan %}{{ m.plan }}<|end|>{% endif %}"
    "{{ m.content }}{{ '<|end|>' if m.brief else '<|return|>' }}{% endgeneration %}{% else %}{{ m.content }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Ends a part of some turns as it ends whole ones."""

CALLED = [
    *turns("Weather?"),
    call("weather"),
    {"role": "tool", "content": "sun"},
    {"role": "assistant", "content": "A"},
]


@pytest.fixture
def marked(tokenizer_folder: Path, tmp_path: Path) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path / "tokenizer", TOKENS)


@pytest.mark.parametrize(
    ("template", "chats", "ends"),
    [
        (PHI, [turns("Q", "A")], ["<|endoftext|>", "<|end|>"]),
        (PHI, [turns("Q", "A", "B", "C")], ["<|end|>", "<|endoftext|>"]),
        (PHI.replace("{{ m.content }}", CALLS), [[*turns("Q"), call("weather")]], ["<|endoftext|>", "<|end|>"]),
        (PARTED, [turns("Q", "A"), turns("Q", "")], ["<|endoftext|>"]),
        (PHI, [turns("Q", "")], ["<|endoftext|>", "<|end|>"]),
        (HARMONY, [turns("Q", "A")], ["<|return|>"]),
        (HARMONY, [CALLED, turns("Q", "A")], ["<|return|>", "<|call|>"]),
        (NESTED_CALLS, [CALLED, turns("Q", "A")], ["<|endoftext|>"]),
        (NESTED_CALLS, [[*turns("Weather?"), call("weather")]], ["<|endoftext|>"]),
    ],
)
def test_they_are_what_the_rows_end_with(
    marked: LoadedTokenizer, tmp_path: Path, template: str, chats: list[Any], ends: list[str]
) -> None:
    info = Writer(marked, tmp_path)(source(*chats), template=template)
    assert [marked.backend.id_to_token(end) for end in info.ends_of_turn] == ends


def test_an_end_that_swallows_the_blank_behind_it_is_one(marked: LoadedTokenizer, tmp_path: Path) -> None:
    # As Phi-3's own tokens do.
    path = marked.folder / "tokenizer.json"
    described = json.loads(path.read_text())
    described["added_tokens"] = [{**one, "rstrip": one["content"] == "<|end|>"} for one in described["added_tokens"]]
    path.write_text(json.dumps(described))
    info = Writer(load_tokenizer(marked.folder), tmp_path)(source(turns("Q", "A")), template=PHI)
    assert [marked.backend.id_to_token(end) for end in info.ends_of_turn] == ["<|endoftext|>", "<|end|>"]


def test_of_rows_that_are_left_out_there_are_none(marked: LoadedTokenizer, tmp_path: Path) -> None:
    info = Writer(marked, tmp_path)(
        source(turns("Q", "A"), [*CALLED[:-1], *turns("", "A " * 90)[1:]]), template=HARMONY
    )
    assert info.dropped == {"too_long": 1}
    assert [marked.backend.id_to_token(end) for end in info.ends_of_turn] == ["<|return|>"]


def test_an_end_that_stands_within_other_turns_is_refused(marked: LoadedTokenizer, tmp_path: Path) -> None:
    planned = [*turns("Q"), {"role": "assistant", "content": "A", "plan": "Say A."}]
    writer = Writer(marked, tmp_path)
    brief = [*turns("Q"), {"role": "assistant", "content": "B", "brief": True}]
    with pytest.raises(DataError, match=r"<\|end\|> ends 1 turns and stands within 1 others[\s\S]*chat\.turns"):
        writer(source(brief, planned), template=SEGMENTED)
    info = writer(source(planned), template=SEGMENTED)
    assert [marked.backend.id_to_token(end) for end in info.ends_of_turn] == ["<|return|>"]


def test_an_end_of_text_within_turns_is_refused(marked: LoadedTokenizer, tmp_path: Path) -> None:
    # It ends none of them, and every generation.
    planned = [*turns("Q"), {"role": "assistant", "content": "A", "plan": "Say A."}]
    apart = SEGMENTED.replace("{{ m.plan }}<|end|>", "{{ m.plan }}{{ eos_token }}")
    with pytest.raises(DataError, match=r"<\|endoftext\|> ends 0 turns and stands within 1 others"):
        Writer(marked, tmp_path)(source(planned), template=apart)


def test_a_quoted_end_is_no_end(marked: LoadedTokenizer, tmp_path: Path) -> None:
    info = Writer(marked, tmp_path)(source(turns("Q", "Say <|call|> or <|end|>.")), template=HARMONY)
    assert [marked.backend.id_to_token(end) for end in info.ends_of_turn] == ["<|return|>"]
