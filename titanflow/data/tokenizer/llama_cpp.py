"""Which tokenizers llama.cpp can follow, told from the structure of ``tokenizer.json`` alone.

llama.cpp knows a fixed set of ways to split text into words, each by a name that a GGUF file carries
(``tokenizer.ggml.pre``). The name follows from the regular expression, never from the name of a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from titanflow.data.tokenizer.words import QWEN2_WORDS

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of words in the ``tokenizer.json`` of Llama 3."""
NFC = "NFC"
"""The normalizer that is let pass: llama.cpp has none, and the caller can bring a text into NFC first."""

Step = tuple[Any, ...]
_BYTES: Step = ("ByteLevel", False, False)
_GPT2: Step = ("ByteLevel", False, True)
WORDS: Mapping[tuple[Step, ...], str] = {
    (_GPT2,): "gpt-2",
    (("Digits", True), _GPT2): "smollm",
    (("Split", QWEN2_WORDS, "Isolated", False), _BYTES): "qwen2",
    (("Split", LLAMA3_WORDS, "Isolated", False), _BYTES): "llama-bpe",
}
"""The steps of a pre-tokenizer, and llama.cpp's name for them."""
WHOLE_WORDS = ("llama-bpe",)
"""The ways in which llama.cpp takes a word that is a token whole, without merging (``ignore_merges``)."""

UNKNOWN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
"""Settings of a BPE that llama.cpp doesn't have."""


NEVER = (0xC0, 0xC1, *range(0xF5, 0x100))
"""The bytes that stand in no text of UTF-8."""


def words_name(described: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way in which a tokenizer splits text into words; empty if it knows none."""
    return WORDS.get(tuple(_steps(described.get("pre_tokenizer"))), "")


def inexpressible(described: Mapping[str, Any]) -> list[str]:
    """What llama.cpp can't do as the content of a ``tokenizer.json`` says; empty if it can do everything."""
    model = described.get("model") or {}
    kind = model.get("type") or "BPE"
    if kind != "BPE":
        return [f"its model is {kind}, and only a byte-level BPE can be written"]
    found = [f"its BPE has {key}={model[key]!r}" for key in UNKNOWN if model.get(key)]
    if not model.get("merges"):
        found.append("its BPE has no merges, and llama.cpp loads none without")
    words = words_name(described)
    if not words:
        found.append(f"llama.cpp has no name for its way to split text into words: {_shown(described)}")
    elif bool(model.get("ignore_merges")) != (words in WHOLE_WORDS):
        found.append(f"its BPE has ignore_merges={bool(model.get('ignore_merges'))}, unlike llama.cpp's {words}")
    vocabulary = model.get("vocab") or {}
    lacking = [byte for byte, letter in byte_letters().items() if letter not in vocabulary and byte not in NEVER]
    if words and lacking:
        found.append(f"its BPE has no token for {len(lacking)} bytes, and llama.cpp leaves out other ones")
    names = [step["type"] for step in _flat(described.get("normalizer"), "normalizers")]
    if names not in ([], [NFC]):
        found.append(f"its normalizer is {' + '.join(names)}, and llama.cpp has none")
    for token in described.get("added_tokens") or []:
        if flags := [flag for flag in ("lstrip", "rstrip", "single_word") if token.get(flag)]:
            found.append(f"its token {token['content']} has {', '.join(flags)}")
    if added_around(described) is None:
        found.append("its post_processor does more than add a token before and one behind a text")
    return found


def byte_letters() -> dict[int, str]:
    """The letter of each byte in a byte-level BPE: the byte's own where it can be seen, and else one from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = itertools.count(256)
    return {byte: chr(byte if byte in seen else next(others)) for byte in range(256)}


def added_around(described: Mapping[str, Any]) -> tuple[str, str] | None:
    """The tokens that the post-processor puts before and behind a text, empty for none; None if it does otherwise."""
    before = behind = ""
    for step in _flat(described.get("post_processor"), "processors"):
        if step["type"] == "ByteLevel":
            continue
        if step["type"] != "TemplateProcessing":
            return None
        pieces = [piece.get("SpecialToken", {}).get("id", "") for piece in step["single"]]
        if pieces.count("") != 1 or len(pieces) > 3:
            return None
        place = pieces.index("")
        if place > 1 or len(pieces) - place > 2:
            return None
        before, behind = "".join(pieces[:place]), "".join(pieces[place + 1 :])
    return before, behind


def _steps(node: Any) -> Iterator[Step]:
    """Each step of a pre-tokenizer with what decides how it splits."""
    for step in _flat(node, "pretokenizers"):
        kind = step["type"]
        if kind == "ByteLevel":
            yield kind, bool(step.get("add_prefix_space")), bool(step.get("use_regex", True))
        elif kind == "Split":
            yield kind, (step.get("pattern") or {}).get("Regex"), step.get("behavior"), bool(step.get("invert"))
        elif kind == "Digits":
            yield kind, bool(step.get("individual_digits"))
        else:
            yield (kind,)


def _flat(node: Any, below: str) -> Iterator[Mapping[str, Any]]:
    if not node:
        return
    if node["type"] == "Sequence":
        for step in node[below]:
            yield from _flat(step, below)
    else:
        yield node


def _shown(described: Mapping[str, Any]) -> str:
    return " + ".join(" ".join(map(str, step)) for step in _steps(described.get("pre_tokenizer"))) or "none"
