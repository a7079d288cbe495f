"""Conversations, templates and tokenizers that several tests of the chat data read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset

from titanflow.config.files.chat_template import template_text
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.source import ROW
from titanflow.data.files.sources import PIECE, PLACE, Source, SourceFile
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer

END = "<|im_end|>"
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")

CHATML = template_text("chatml")
LLAMA3 = template_text("llama3")
ZEPHYR = template_text("zephyr")

UNMARKED = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What most tokenizers of the Hub carry: no `{% generation %}`."""

FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Like Qwen3's: the thoughts of earlier turns are left out."""

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}},
    }
]


def turns(*contents: str, system: str = "") -> list[dict[str, Any]]:
    """User and assistant by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *messages] if system else messages


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """An assistant's message that calls a function."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def chat(*contents: str, system: str = "") -> Conversation:
    """A conversation of :func:`turns`."""
    return Conversation(turns(*contents, system=system))


def trained_texts(encoder: ChatEncoder, encoded: Encoded) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    runs: list[list[int]] = []
    was_trained = False
    for token, is_trained in zip(encoded.ids.tolist(), encoded.trained.tolist(), strict=True):
        if is_trained and not was_trained:
            runs.append([])
        if is_trained:
            runs[-1].append(token)
        was_trained = is_trained
    return [str(encoder.tokenizer.backend.decode(run, skip_special_tokens=False)) for run in runs]


def spoken(encoder: ChatEncoder, conversation: Conversation | list[dict[str, Any]]) -> list[str]:
    """The text of each unbroken run of a conversation's trained tokens."""
    if isinstance(conversation, list):
        conversation = Conversation(conversation)
    return trained_texts(encoder, encoder.encode(conversation))


def add_special_tokens(source: Path, folder: Path, tokens: tuple[str, ...] = LLAMA3_TOKENS) -> LoadedTokenizer:
    """A copy of a tokenizer with more special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    description = json.loads((folder / "tokenizer.json").read_text())
    first = len(description["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    description["added_tokens"] += [
        {"id": first + number, "content": token, **flags} for number, token in enumerate(tokens)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return load_tokenizer(folder)


def source_of(texts: list[str]) -> Source:
    """Conversations as a file of lines gives them."""
    rows = {ROW: texts, PIECE: [0] * len(texts), PLACE: range(1, len(texts) + 1)}
    return Source(Dataset.from_dict(rows), [SourceFile("a.jsonl", "line")])
