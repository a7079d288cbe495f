"""Hashes a row's content to 64 bits, independently of its file's format and its place there.

The content is a document's text, or what a conversation's turns say. Other columns, the layout, and which turns are
trained make no difference, so that rows which teach the same have the same hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from titanflow.data.chat.layout import Conversation
from titanflow.data.pairs.layout import Pair

BITS = 64


def text_hash(text: str) -> int:
    """The hash of a document."""
    # A lone surrogate, which a JSON file may hold, is refused later, with its place.
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=BITS // 8).digest(), "big")


def chat_hash(conversation: Conversation, row: Any) -> int:
    """The hash of a conversation. If it can't be trained on, that of the ``row`` that it was read from."""
    if conversation.problems:
        return text_hash(_canonical(row))
    return text_hash(_canonical(_said(conversation)))


def pair_hash(pair: Pair, row: Any) -> int:
    """The hash of what both sides of a pair say. If it can't be trained on, that of the ``row``."""
    return text_hash(_canonical(row if pair.problems else [_said(side) for side in pair.sides]))


def _said(conversation: Conversation) -> list[dict[str, Any]]:
    return [{key: value for key, value in turn.items() if key != "train"} for turn in conversation.messages]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
