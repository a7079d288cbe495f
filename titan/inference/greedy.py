"""What a model says to a fixed sentence without chance, in token ids: how a copy of it is recognised."""

from __future__ import annotations

from typing import Any

from titanflow.run.results import Greedy

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it"
"""The prompt is the first tokens of this, whatever the tokenizer makes of it."""
PROMPT_TOKENS = 8
NEW_TOKENS = 16


def record_greedy(model: Any, tokenizer: Any) -> Greedy:
    """The continuation of a short fixed prompt: one row, no padding, no end of text, so that its length is known.

    Args:
        model: a transformers model, in fp32: in less the choice between two near tokens is the hardware's.
        tokenizer: its tokenizer.
    """
    prompt = tokenizer.encode(SENTENCE, add_special_tokens=False)[:PROMPT_TOKENS]
    return continue_greedily(model, prompt)


def continue_greedily(model: Any, prompt: list[int], new_tokens: int = NEW_TOKENS) -> Greedy:
    """A model's own choice after a prompt of token ids, ``new_tokens`` of them or as many as its context holds."""
    import torch
    from transformers import GenerationConfig

    room = model.config.max_position_embeddings - len(prompt)
    config = GenerationConfig(do_sample=False, max_new_tokens=max(1, min(new_tokens, room)), pad_token_id=0)
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        inputs = torch.tensor([prompt], device=model.device)
        with torch.inference_mode():
            out = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
    finally:
        model.generation_config = own
    return Greedy(prompt=prompt, continuation=out[0, len(prompt) :].tolist())
