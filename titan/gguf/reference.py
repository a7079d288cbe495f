"""What the evaluated model says: the reference of the proof of a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titan.gguf.texts import compared_texts
from titan.inference.greedy import NEW_TOKENS, continue_greedily

PROMPTS = 8
LONGEST_PROMPT = 512


@dataclass(frozen=True)
class Reference:
    """What the evaluated model says: its tokenizer, prompts, greedy continuations, and their log-probabilities.

    ``scores`` has ``[tokens of the continuation, vocabulary]`` for each prompt. ``stops`` end a generation.
    """

    tokenizer: Any
    texts: list[str]
    prompts: list[list[int]]
    continuations: list[list[int]]
    scores: list[NDArray[np.float64]]
    stops: tuple[int, ...]
    context: int

    @classmethod
    def read(cls, model: Any, tokenizer: Any, rows: Path | None, stops: tuple[int, ...]) -> Reference:
        """Lets a model of transformers, in float32, continue prompts of several lengths.

        ``rows`` is a folder of prepared rows, from which texts and prompts are taken; None for built-in ones alone.
        """
        texts = compared_texts(tokenizer, rows)
        context = min(model.config.max_position_embeddings, LONGEST_PROMPT + NEW_TOKENS)
        prompts = some_prompts(tokenizer, texts, max(1, context - NEW_TOKENS))
        continuations = [continue_greedily(model, prompt).continuation for prompt in prompts]
        pairs = zip(prompts, continuations, strict=True)
        scores = [_scores(model, [*prompt, *continuation], len(continuation)) for prompt, continuation in pairs]
        return cls(tokenizer, texts, prompts, continuations, scores, stops, context)


def some_prompts(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Prompts of lengths from short to ``longest`` tokens, so that near and far positions are tried."""
    ids: list[int] = []
    for text in texts:
        ids += tokenizer.encode(text, add_special_tokens=False)
    lengths = np.linspace(min(8, max(1, longest)), max(1, longest), PROMPTS, dtype=int).tolist()
    starts = np.linspace(0, max(0, len(ids) - longest), PROMPTS, dtype=int).tolist()
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def _scores(model: Any, tokens: list[int], last: int) -> NDArray[np.float64]:
    """The log-probabilities of the ``last`` tokens' places."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([tokens[:-1]])).logits[0, -last:].double()
    found: NDArray[np.float64] = logits.log_softmax(-1).numpy()
    return found
