"""Encodes pieces of a text so that together they have the whole text's tokens.

Some tokenizers prepend a blank (SentencePiece's ``▁``, a byte-level prefix space) where a text begins, and some behind
each special token too. So a piece's tokens depend on its place.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from titanflow.data.tokenizer.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Place = Literal["opening", "following", "continuing"]
"""A piece's place: at the beginning of the text, behind a special token, or in the middle of other text."""
_PARTS = ("normalizers", "pretokenizers")


class TextEncoder:
    """One tokenizer at the three places of a text. It encodes special tokens as plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._backends: dict[Place, Tokenizer] = {
            "opening": tokenizer,
            "following": _without(tokenizer, _never_first),
            "continuing": _without(tokenizer, _never_prefixed),
        }
        added = tokenizer.get_added_tokens_decoder().values()
        self._added = SpecialTokens({token.content: token for token in added if not token.special})
        self._prefixes = self._backends["continuing"] is not self._backends["following"]

    def encode_batch(self, texts: list[str], place: Place) -> list[list[int]]:
        if place == "continuing" and self._prefixes:
            return self._continuing(texts)
        return self._encode(texts, place)

    def place_behind(self, text: str) -> Place:
        """The place of a piece that was cut from the ``text`` before it, which may end with an added token."""
        if not self._prefixes:
            return "continuing"
        ends = [found.end for found in self._added.find(text)]
        return "following" if ends[-1:] == [len(text)] else "continuing"

    def is_seam(self, left: str, right: str) -> bool:
        """Whether two neighbouring pieces in the middle of a text have the same tokens as both together."""
        whole, *parts = self.encode_batch([left + right, left, right], "continuing")
        return whole == [*parts[0], *parts[1]]

    def _continuing(self, texts: list[str]) -> list[list[int]]:
        """Prepends nothing before the first token that was added to the vocabulary, but behind each of them."""
        cuts = [next((found.start for found in self._added.find(text)), len(text)) for text in texts]
        heads = self._encode([text[:cut] for text, cut in zip(texts, cuts, strict=True)], "continuing")
        tails = self._encode([text[cut:] for text, cut in zip(texts, cuts, strict=True)], "following")
        return [head + tail for head, tail in zip(heads, tails, strict=True)]

    def _encode(self, texts: list[str], place: Place) -> list[list[int]]:
        encoded = self._backends[place].encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encoded]


def _without(tokenizer: Tokenizer, change: Any) -> Tokenizer:
    """A changed copy of a tokenizer; to save memory, the tokenizer itself if the change has no effect."""
    described = json.loads(tokenizer.to_str())
    changed = {name: change(described.get(name)) for name in ("normalizer", "pre_tokenizer")}
    if all(described.get(name) == part for name, part in changed.items()):
        return tokenizer
    copy = type(tokenizer).from_str(json.dumps(described | changed))
    copy.encode_special_tokens = tokenizer.encode_special_tokens
    return copy


def _never_first(part: Any) -> Any:
    """Turns off a prefix that only a text's first character gets: no text behind a special token has it."""
    if not isinstance(part, dict):
        return part
    if part.get("prepend_scheme") == "first":
        return part | {"prepend_scheme": "never"}
    return {key: [_never_first(one) for one in value] if key in _PARTS else value for key, value in part.items()}


def _never_prefixed(part: Any) -> Any:
    """Turns off whatever is prepended or stripped at the beginning.

    A sequence that splits the text first gives each word a prefix, wherever it stands: that one stays.
    """
    part = _never_first(part)
    if not isinstance(part, dict):
        return part
    match part["type"]:
        case "Sequence" if "normalizers" in part:
            kept = [one for one in map(_never_prefixed, part["normalizers"]) if one is not None]
            return part | {"normalizers": kept}
        case "Sequence":
            first, *rest = part["pretokenizers"] or [None]
            return part | {"pretokenizers": [_never_prefixed(first), *rest] if first else []}
        case "Prepend":
            return None
        case "Metaspace":
            return part | {"prepend_scheme": "never"}
        case "ByteLevel" if "add_prefix_space" in part:
            return part | {"add_prefix_space": False}
        case "Strip" if "strip_left" in part:
            return part | {"strip_left": False}
    return part
