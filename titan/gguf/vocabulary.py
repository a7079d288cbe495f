"""A tokenizer as a GGUF file holds it: tokens by id, merges, special ids, and how text is split into words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titan.weights.hf_folder import load_tokenizer
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.chat_template import template_of
from titanflow.data.tokenizer.llama_cpp import added_around, inexpressible, words_name

MOST_STOPS = 3
"""Tokens that end a generation for which a GGUF file has a key: the end of text, of a turn and of a message."""


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to tokenise.

    ``types`` has ``gguf.TokenType`` numbers, as many as ``tokens``: one for each row of the embedding. ``stops`` are
    the ids that end a generation, the end of text first; ``bos`` and ``pad`` are None if there is none.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    words: str
    stops: tuple[int, ...]
    bos: int | None
    pad: int | None
    add_bos: bool
    add_eos: bool
    template: str | None

    @classmethod
    def read(cls, folder: Path, rows: int) -> Vocabulary:
        """Reads the tokenizer of an exported folder as transformers loads it; ``rows`` counts the embeddings.

        Raises:
            ConfigError: llama.cpp can't follow the tokenizer.
        """
        loaded = load_tokenizer(folder)
        described = json.loads(loaded.backend_tokenizer.to_str())
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        stops = _ids(config["eos_token_id"])
        vocabulary = {**described["model"]["vocab"], **{token["content"]: token["id"] for token in _added(described)}}
        wrong = inexpressible(described)
        before, behind = added_around(described) or ("", "")
        if behind and vocabulary[behind] != stops[0]:
            wrong.append(f"its post_processor ends a text with {behind}, which isn't the end of text")
        if len(stops) > MOST_STOPS:
            wrong.append(f"{len(stops)} tokens end a generation, and a GGUF file names {MOST_STOPS}")
        if wrong:
            raise ConfigError([Problem(f"{folder.name}: {one}", "gguf", hint="leave gguf out") for one in wrong])
        return cls(
            *_by_id(described, rows),
            merges=[one if isinstance(one, str) else " ".join(one) for one in described["model"]["merges"]],
            words=words_name(described),
            stops=stops,
            bos=vocabulary[before] if before else loaded.bos_token_id,
            pad=loaded.pad_token_id,
            add_bos=bool(before),
            add_eos=bool(behind),
            template=template_of(folder),
        )

    def add_to(self, writer: Any) -> None:
        """Adds the tokenizer's keys to a ``gguf.GGUFWriter``."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.words)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        for add, token in zip(adders, self.stops, strict=False):
            add(token)
        if self.bos is not None:
            writer.add_bos_token_id(self.bos)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        # Written even where they are false: for some pre-tokenizers llama.cpp adds a token unless told not to.
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.template:
            writer.add_chat_template(self.template)


def _by_id(described: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """The text and the type of each row's token; rows beyond the vocabulary are unused."""
    from gguf import TokenType

    # llama.cpp ends the process if two rows have the same text; no token of a byte-level vocabulary has a blank.
    tokens = [f"[unused {number}]" for number in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for text, number in described["model"]["vocab"].items():
        tokens[number], types[number] = text, int(TokenType.NORMAL)
    for token in _added(described):
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]], types[token["id"]] = token["content"], int(kind)
    return tokens, types


def _added(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(described.get("added_tokens") or [])


def _ids(value: int | list[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
