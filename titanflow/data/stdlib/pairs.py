"""Pairs about the standard library's public names: a chat with its last answer, and with a wrong one in its place."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from titanflow.data.stdlib.chats import chats, kind_answer
from titanflow.data.stdlib.names import read_names

Turns = list[dict[str, str]]
_DEFINED = " is defined in "
_KINDS = {kind_answer("class"): kind_answer("function"), kind_answer("function"): kind_answer("class")}


def pairs(part: str = "train", limit: int | None = None) -> list[dict[str, Turns]]:
    """The pairs of one part, each ``{"prompt", "chosen", "rejected"}`` as lists of turns, the same in every run.

    They are those of the part's chats that end with a kind or a module, which can be wrong in a way that is known.
    """
    found = [pair for chat in chats(part) if (pair := _pair(chat))]
    return found[:limit]


def _pair(chat: Turns) -> dict[str, Any] | None:
    *prompt, answer = chat
    wrong = _KINDS.get(answer["content"]) or _wrong_module(answer["content"])
    if not wrong:
        return None
    return {"prompt": prompt, "chosen": [answer], "rejected": [{**answer, "content": wrong}]}


def _wrong_module(answer: str) -> str:
    """The answer with another module of the library; empty if it isn't about a module."""
    name, said, module = answer.removesuffix(".").partition(_DEFINED)
    others = [other for other in _modules() if other != module]
    return f"{name}{_DEFINED}{random.Random(answer).choice(others)}." if said else ""


@cache
def _modules() -> list[str]:
    return sorted({name.module for name in read_names()})
