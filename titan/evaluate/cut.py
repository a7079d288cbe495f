"""Prompts longer than the model's context: lm-eval cuts off their beginning silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.evals.known_names import GENERATE, LENGTHS

SCORED = "loglikelihood"


def cut_prompts(lm: Any, task: Any) -> dict[str, int]:
    """Counts the items of a task whose prompt was cut, in the form of ``CutPrompts``; empty if none was.

    The task's requests must have been built.
    """
    asked = [one for one in task.instances if one.request_type in (GENERATE, SCORED)]
    cut: set[int] = set()
    tokens = longest = 0
    for text, room, item in {(*_text(lm, one), one.doc_id) for one in asked}:
        # Encoding is slow, and rarely needed: a token has at least one byte, but for a few that a tokenizer may add.
        if len(text.encode()) + 8 <= room or (length := len(lm.tok_encode(text))) <= room:
            continue
        cut.add(item)
        if length - room > tokens:
            tokens, longest = length - room, length
    if not cut:
        return {}
    return {"prompts": len(cut), "of": len({one.doc_id for one in asked}), "tokens": tokens, "longest": longest}


def _text(lm: Any, instance: Any) -> tuple[str, int]:
    """The text that the model reads for a request, and the number of tokens that fit."""
    if instance.request_type == SCORED:
        # The last token is scored and not read.
        return "".join(instance.args[:2]), lm.max_length + 1
    settings: Mapping[str, Any] = instance.args[1]
    named = next((settings[name] for name in LENGTHS if settings.get(name) is not None), lm.max_gen_toks)
    return instance.args[0], lm.max_length - int(named)
