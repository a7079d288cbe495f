"""Texts, chats, a tokenizer and random weights, made on the spot: nothing is downloaded."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from titanflow.data.stdlib.text import documents
from titanflow.data.tokenizer.tokenizer import train_tokenizer

VOCAB = 2048
"""Of the tokenizer. The models keep their own vocabularies, whose other rows no text names."""


def write_text(folder: Path, megabytes: float) -> Path:
    """The interpreter's own standard library, a module a line of JSON."""
    path, size = folder / "text.jsonl", 0
    with path.open("w", encoding="utf-8") as file:
        for text, _ in documents("train"):
            size += file.write(json.dumps({"text": text}) + "\n")
            if size > megabytes * 1e6:
                break
    return path


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE with the tokens of a chat."""
    path = folder / "tokenizer"
    texts = [text for text, _ in documents("train")]
    train_tokenizer(texts[:100], VOCAB, path)
    return path


def write_chats(folder: Path, rows: int) -> Path:
    """Conversations of one to three questions and answers, some hundred tokens each, all different."""
    lines = [line.strip() for text, _ in documents("train") for line in text.splitlines() if len(line.strip()) > 30]
    draw, path = random.Random(0), folder / "chats.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            messages = [{"role": "system", "content": f"Chat {number}."}]
            for _ in range(draw.randint(1, 3)):
                messages.append({"role": "user", "content": " ".join(draw.choices(lines, k=draw.randint(1, 3)))})
                messages.append({"role": "assistant", "content": "\n".join(draw.choices(lines, k=draw.randint(1, 6)))})
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def write_qwen3(folder: Path, tokenizer: Path, device: str, **sizes: Any) -> Path:
    """A Qwen3 with random weights as transformers writes it, beside a tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**sizes, tie_word_embeddings=True, max_position_embeddings=40960)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    # The stage that starts from it is another process, and needs the memory.
    del model
    torch.cuda.empty_cache()
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder
