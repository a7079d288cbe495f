"""The keys of answers that are given beside a training."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Samples:
    """Answers of the model that is being trained."""

    prompts: list[str] = field(default_factory=list)
    """Texts that the model goes on from at each validation, taking the likeliest token each time; in a fine-tuning each
    is a user's message. The answers stand in the log, in `samples.jsonl` and in the report."""
    max_new_tokens: int = 40
    """The most tokens of an answer."""
