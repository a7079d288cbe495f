"""Texts, chats, pairs, a tokenizer and models that both sides are given; made here, so that nothing is downloaded."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from titanflow.data.stdlib.text import documents
from titanflow.data.tokenizer.tokenizer import SPECIAL_TOKENS, add_special_tokens, train_tokenizer

VOCAB = 8192
LLAMA3_SPECIAL_TOKENS = 256
QUESTION, ANSWER = (5.384, 0.382), (5.544, 0.487)
"""Mean and standard deviation of the logarithm of the characters of GSM8K's 7,473 questions and answers."""
LONGEST = 1200
"""Characters of the longest question or answer there, roughly."""
SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "12M": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 6},
    "50M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 10, "num_attention_heads": 9},
}
"""Llamas by their parameters at :data:`VOCAB`, embedding and head included."""


def write_corpus(path: Path, megabytes: float) -> Path:
    """Documents of the interpreter's standard library as JSON lines, numbered, so that no two are equal."""
    texts, written, number = [text for text, _ in documents("train")], 0, 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            written += file.write(json.dumps({"text": f"{number}\n{texts[number % len(texts)]}"}) + "\n")
            number += 1
    return path


def write_tokenizer(folder: Path, vocab: int = VOCAB) -> Path:
    """A byte-level BPE of the standard library, with ChatML's template."""
    train_tokenizer((text for text, _ in documents("train")), vocab, folder)
    return folder


def with_special_tokens(tokenizer: Path, folder: Path) -> Path:
    """A copy of a tokenizer with as many special tokens as Llama 3's has."""
    shutil.copytree(tokenizer, folder)
    reserved = range(LLAMA3_SPECIAL_TOKENS - len(SPECIAL_TOKENS))
    add_special_tokens(folder, [f"<|reserved_special_token_{number}|>" for number in reserved])
    return folder


def write_chats(path: Path, rows: int) -> Path:
    """One question and one answer a chat, of words of the standard library, as long as GSM8K's; all different."""
    say = _sentences(0)
    turns = ((say(f"{number}", QUESTION), say("", ANSWER)) for number in range(rows))
    _write(path, ({"messages": [_turn("user", asked), _turn("assistant", told)]} for asked, told in turns))
    return path


def write_long_chats(path: Path, rows: int) -> Path:
    """Conversations of one to three questions and answers of whole lines, a quarter with a system prompt."""
    lines = [line.strip() for text, _ in documents("train") for line in text.splitlines() if len(line.strip()) > 30]
    draw = random.Random(0)

    def chat(number: int) -> dict[str, Any]:
        messages = [_turn("system", f"Chat {number}.")] if number % 4 == 0 else []
        for _ in range(draw.randint(1, 3)):
            messages.append(_turn("user", " ".join(draw.choices(lines, k=draw.randint(1, 3)))))
            messages.append(_turn("assistant", "\n".join(draw.choices(lines, k=draw.randint(1, 6)))))
        return {"messages": messages}

    _write(path, map(chat, range(rows)))
    return path


def write_pairs(path: Path, rows: int) -> Path:
    """A question and two answers a row, as TRL's conversational pairs."""
    say = _sentences(1)

    def pair(number: int) -> dict[str, Any]:
        sides = {name: [_turn("assistant", say("", ANSWER))] for name in ("chosen", "rejected")}
        return {"prompt": [_turn("user", say(f"{number}", QUESTION))], **sides}

    _write(path, map(pair, range(rows)))
    return path


def write_model(folder: Path, tokenizer: Path, size: str) -> Path:
    """An untrained llama in transformers' format, in float32, with its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(loaded),
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=loaded.eos_token_id,
        pad_token_id=loaded.pad_token_id,
        **SIZES[size],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


def first_rows(path: Path, out: Path, rows: int) -> Path:
    """A file of the first rows of another."""
    with path.open() as file:
        out.write_text("".join(islice(file, rows)))
    return out


def _sentences(seed: int) -> Any:
    words = sorted({word for text, _ in documents("train") for word in text.split() if word.isalpha()})
    draw = random.Random(seed)

    def say(begin: str, length: tuple[float, float]) -> str:
        characters = min(LONGEST, math.exp(draw.gauss(*length)))
        said = [begin] if begin else []
        while sum(map(len, said)) + len(said) < characters:
            said.append(draw.choice(words))
        return " ".join(said)

    return say


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
