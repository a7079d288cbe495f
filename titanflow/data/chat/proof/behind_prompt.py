"""Finds the beginning of an answer whose template writes another history before it than in its prompt.

Some templates change the history once the answer follows: Mistral's write the system message into a question only if
it comes last, gpt-oss's drops the thoughts of a call that an answer follows. A model is asked with the prompt, so the
row is the prompt with the answer behind it.
"""

from __future__ import annotations

from bisect import bisect_left


def answer_start(prompt: str, text: str, last: int) -> int | None:
    """Where the last answer of a rendered conversation begins; None if that can't be told.

    Args:
        prompt: the answer's prompt.
        text: the whole conversation, which doesn't begin with ``prompt``.
        last: where in the prompt its last message begins: from there on both must say the same.
    """
    shared = _shared_end(prompt, text)
    return None if shared < len(prompt) - last else text.rindex(prompt[-shared:]) + shared


def _shared_end(prompt: str, text: str) -> int:
    """The length of the longest end of a prompt that is part of a text; if one is, so is each shorter one."""
    return bisect_left(range(1, len(prompt) + 1), True, key=lambda length: prompt[-length:] not in text)
