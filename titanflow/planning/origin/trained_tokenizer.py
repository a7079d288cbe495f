"""Why no tokenizer can be trained on a module's data."""

from __future__ import annotations

from titanflow.common.errors import Problem
from titanflow.config.division import sources
from titanflow.config.keys.training import RENDERED_KINDS, is_divided
from titanflow.config.module import Module
from titanflow.planning.origin.given_tokenizer import EXPECTED, KEYS

_GIVEN = f"in {' or '.join(KEYS)}: {EXPECTED}"


def untrainable(module: Module, vocab_size: int) -> list[Problem]:
    """Why no tokenizer of ``vocab_size`` tokens can be trained; 0 if the number isn't set."""
    problems = []
    data = module.config["data"]
    if data["streaming"]:
        problems.append(module.problem("data.streaming", "a tokenizer can't be trained on a stream", _GIVEN))
    for key, source in sources(data, "data").items():
        if source["kind"] in RENDERED_KINDS and not source["source"] and is_divided(source):
            # By its text column a row could fall into another part than by its conversation.
            message = "conversations are held out, and a tokenizer is trained on text"
            problems.append(module.problem(f"{key}.held_out", message, _GIVEN))
    if not vocab_size:
        message = "unset, and a plan doesn't know the vocabulary of a family of one's own"
        expected = "the number of tokens that the tokenizer is to have, at most the model's vocab_size"
        hint = f"or name a tokenizer in `{KEYS[0]}`: {EXPECTED}"
        problems.append(module.problem("tokenizer.vocab_size", message, expected, hint))
    return problems
