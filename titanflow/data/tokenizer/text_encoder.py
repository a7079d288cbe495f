"""Encodes pieces of a text so that, one after another, they are what the whole text would give.

A tokenizer that prepends a blank (SentencePiece's ``▁``, a byte-level prefix space) does so where a text begins, and
some do behind each special token. So a piece's tokens depend on what stands before it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from titanflow.data.tokenizer.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Place = Literal["opening", "following", "continuing"]
"""Where a piece stands: where the text begins, behind a special token, or in the middle of other text."""


class TextEncoder:
    """One tokenizer at the three places of a text. Special tokens in what it encodes are taken for plain text."""

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
        """The tokens of each text, as they are at such a place."""
        if place == "continuing" and self._prefixes:
            return self._continuing(texts)
        return self._encode(texts, place)

    def place_behind(self, text: str) -> Place:
        """Where a piece stands that ``text`` was cut from: a token that was added to the vocabulary may end it."""
        if not self._prefixes:
            return "continuing"
        ends = [found.end for found in self._added.find(text)]
        return "following" if ends[-1:] == [len(text)] else "continuing"

    def is_seam(self, left: str, right: str) -> bool:
        """Whether two neighbouring pieces in the middle of a text have its tokens."""
        whole, *parts = self.encode_batch([left + right, left, right], "continuing")
        return whole == [*parts[0], *parts[1]]

    def _continuing(self, texts: list[str]) -> list[list[int]]:
        """Up to the first token that was added to the vocabulary nothing is prepended; behind each of them it is."""
        cuts = [next((found.start for found in self._added.find(text)), len(text)) for text in texts]
        heads = self._encode([text[:cut] for text, cut in zip(texts, cuts, strict=True)], "continuing")
        tails = self._encode([text[cut:] for text, cut in zip(texts, cuts, strict=True)], "following")
        return [head + tail for head, tail in zip(heads, tails, strict=True)]

    def _encode(self, texts: list[str], place: Place) -> list[list[int]]:
        encoded = self._backends[place].encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encoded]


def _without(tokenizer: Tokenizer, change: Any) -> Tokenizer:
    """A copy that prepends nothing; the tokenizer itself where the change changes nothing, as a copy takes memory."""
    described = json.loads(tokenizer.to_str())
    changed = {name: change(described.get(name)) for name in ("normalizer", "pre_tokenizer")}
    if all(described.get(name) == part for name, part in changed.items()):
        return tokenizer
    copy = type(tokenizer).from_str(json.dumps(described | changed))
    copy.encode_special_tokens = tokenizer.encode_special_tokens
    return copy


def _never_first(part: Any) -> Any:
    """``first`` means the first character of a text, which stands behind no special token."""
    if not isinstance(part, dict):
        return part
    if part.get("prepend_scheme") == "first":
        return part | {"prepend_scheme": "never"}
    return {key: [_never_first(one) for one in value] if key in _PARTS else value for key, value in part.items()}


def _never_prefixed(part: Any) -> Any:
    """Nothing is prepended or stripped at the beginning.

    In a sequence that parts the text first, each word has its prefix, wherever it stands: there it stays.
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


_PARTS = ("normalizers", "pretokenizers")
