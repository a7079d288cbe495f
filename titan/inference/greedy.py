"""A model's greedy continuation of a fixed sentence, in token ids: it identifies copies of the model."""

from __future__ import annotations

from typing import Any

from titanflow.runs.results import Greedy

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it"
"""Its first tokens are the prompt, whatever the tokenizer."""
PROMPT_TOKENS = 8
NEW_TOKENS = 16


def record_greedy(model: Any, tokenizer: Any) -> Greedy:
    """The continuation of a short fixed prompt: one row, no padding, no end of text, so that its length is known.

    ``model`` is a transformers model in fp32: with lower precision hardware decides between two near tokens.
    """
    return continue_greedily(model, tokenizer.encode(SENTENCE, add_special_tokens=False)[:PROMPT_TOKENS])


def continue_greedily(model: Any, prompt: list[int], new_tokens: int = NEW_TOKENS) -> Greedy:
    """Continues a prompt of token ids by ``new_tokens`` tokens, or as many as the context holds."""
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
