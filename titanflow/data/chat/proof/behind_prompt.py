"""Where an answer begins that a template renders behind another history than the one in its prompt.

Some templates write the history otherwise once the answer stands behind it: Mistral's write the system message into a
question that comes last, gpt-oss's drops the thoughts of a call that an answer follows. A model is asked with the
prompt; so the row is that prompt with the answer behind it.
"""

from __future__ import annotations


def answer_start(prompt: str, text: str, last: int) -> int | None:
    """Where the last answer of a rendered conversation begins; None where that can't be told.

    Args:
        prompt: what asks for the answer.
        text: the whole conversation, which doesn't begin with ``prompt``.
        last: where in the prompt the message before the answer stands: from there on both must say the same.
    """
    shared = _shared_end(prompt, text)
    return None if shared < len(prompt) - last else text.rindex(prompt[-shared:]) + shared


def _shared_end(prompt: str, text: str) -> int:
    """How many characters at the end of a prompt stand somewhere in a text."""
    found, missing = 0, len(prompt) + 1
    while missing - found > 1:
        tried = (found + missing) // 2
        if prompt[-tried:] in text:
            found = tried
        else:
            missing = tried
    return found
