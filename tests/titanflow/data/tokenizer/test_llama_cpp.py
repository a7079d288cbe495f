"""Which tokenizers llama.cpp can follow, by the structure of their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_kinds import write_kind
from tokenizers.pre_tokenizers import ByteLevel

from titanflow.data.tokenizer.llama_cpp import LLAMA3_WORDS, added_around, byte_letters, inexpressible, words_name
from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.data.tokenizer.words import QWEN2, QWEN2_WORDS

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
GPT2 = BYTES | {"use_regex": True}
LETTERS = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
RIGHT: dict[str, Any] = {"pre_tokenizer": GPT2, "model": {"type": "BPE", "vocab": LETTERS, "merges": [["a", "b"]]}}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(regex: str, **changes: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | changes


@pytest.mark.parametrize(
    ("words", "name", "normalizer"), [("", "gpt-2", None), (QWEN2, "qwen2", {"type": "NFC"})], ids=["gpt-2", "qwen2"]
)
def test_what_is_trained_here_can_be_followed(words: str, name: str, normalizer: Any, tmp_path: Path) -> None:
    train_tokenizer(["some words, and more words"], 280, tmp_path, words)
    described = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert (words_name(described), described["normalizer"]) == (name, normalizer)
    assert inexpressible(described) == []


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        (GPT2, "gpt-2"),
        (sequence(GPT2), "gpt-2"),
        # Files of older versions lack the key.
        ({"type": "ByteLevel", "add_prefix_space": False}, "gpt-2"),
        (sequence({"type": "Digits", "individual_digits": True}, GPT2), "smollm"),
        (sequence(split(QWEN2_WORDS), BYTES), "qwen2"),
        (sequence(split(LLAMA3_WORDS), BYTES), "llama-bpe"),
        (sequence(split(LLAMA3_WORDS.replace("{1,3}", "{1,2}")), BYTES), ""),
        (sequence(split(QWEN2_WORDS, behavior="Removed"), BYTES), ""),
        (sequence(split(QWEN2_WORDS, invert=True), BYTES), ""),
        (sequence(split(QWEN2_WORDS), GPT2), ""),
        (sequence({"type": "Digits", "individual_digits": False}, GPT2), ""),
        (GPT2 | {"add_prefix_space": True}, ""),
        (BYTES, ""),
        ({"type": "Metaspace"}, ""),
        (None, ""),
    ],
)
def test_the_name_follows_from_the_structure(pre_tokenizer: Any, name: str) -> None:
    assert words_name({"pre_tokenizer": pre_tokenizer}) == name


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("bytes", ""),
        ("bytes composed", ""),
        ("bytes with a prefix space", "no name for its way to split text into words: ByteLevel True True"),
        ("bytes of lower case", "its normalizer is Lowercase, and llama.cpp has none"),
        ("bytes without accents", "its normalizer is NFD + Lowercase + StripAccents"),
        ("bytes stripped", "its normalizer is Strip"),
        ("first-fast", "byte_fallback=True"),
        ("bpe metaspace first", "Metaspace"),
        ("unigram metaspace always", "its model is Unigram, and only a byte-level BPE can be written"),
        ("wordpiece", "its model is WordPiece"),
    ],
)
def test_real_tokenizers_of_each_kind(kind: str, says: str, tmp_path: Path) -> None:
    described = json.loads((write_kind(kind, tmp_path) / "tokenizer.json").read_text(encoding="utf-8"))
    found = "; ".join(inexpressible(described))
    assert says in found
    assert bool(says) is bool(found)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": RIGHT["model"] | {"dropout": 0.1}}, "its BPE has dropout=0.1"),
        ({"model": RIGHT["model"] | {"ignore_merges": True}}, "ignore_merges=True, unlike llama.cpp's gpt-2"),
        ({"model": RIGHT["model"] | {"merges": []}}, "its BPE has no merges"),
        ({"model": RIGHT["model"] | {"vocab": {"a": 0, "Ġ": 1}}}, "its BPE has no token for 241 bytes"),
        ({"added_tokens": [{"content": "<x>", "lstrip": True, "rstrip": False}]}, "its token <x> has lstrip"),
        ({"added_tokens": [{"content": "<x>", "single_word": True}]}, "its token <x> has single_word"),
        ({"post_processor": {"type": "BertProcessing"}}, "its post_processor does more"),
        (
            {"pre_tokenizer": sequence(split(LLAMA3_WORDS), BYTES)},
            "ignore_merges=False, unlike llama.cpp's llama-bpe",
        ),
    ],
)
def test_what_llama_cpp_has_not(changes: dict[str, Any], says: str) -> None:
    assert inexpressible(RIGHT) == []
    (found,) = inexpressible(RIGHT | changes)
    assert says in found


def template(*tokens: str) -> dict[str, Any]:
    pieces = [{"SpecialToken": {"id": one}} if one else {"Sequence": {"id": "A"}} for one in tokens]
    return {"type": "TemplateProcessing", "single": pieces}


@pytest.mark.parametrize(
    ("processor", "around"),
    [
        (None, ("", "")),
        ({"type": "ByteLevel"}, ("", "")),
        (template("<s>", ""), ("<s>", "")),
        (template("<s>", "", "</s>"), ("<s>", "</s>")),
        (template("", "</s>"), ("", "</s>")),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<s>", "")]}, ("<s>", "")),
        (template("<s>", "<s>", ""), None),
        (template("", "", ""), None),
        ({"type": "RobertaProcessing"}, None),
    ],
)
def test_the_tokens_around_a_text(processor: Any, around: tuple[str, str] | None) -> None:
    assert added_around({"post_processor": processor}) == around


def test_the_letters_of_bytes_are_those_of_tokenizers() -> None:
    """A byte that no text of UTF-8 has may lack its letter, as in tokenizers that are trained on texts alone."""
    letters = byte_letters()
    assert sorted(letters.values()) == sorted(ByteLevel.alphabet())
    ((word, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" é\n")
    assert word == "".join(letters[byte] for byte in " é\n".encode())
    rare = {letters[byte] for byte in (0xC0, 0xFF)}
    vocabulary = {letter: number for letter, number in LETTERS.items() if letter not in rare}
    assert inexpressible(RIGHT | {"model": RIGHT["model"] | {"vocab": vocabulary}}) == []
