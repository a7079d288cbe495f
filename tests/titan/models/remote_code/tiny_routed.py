"""Tiny models with routed layers, natively and for transformers, of the same sensitised weights."""

from __future__ import annotations

from typing import Any

import torch
from routed_models import family_of, router_of
from tiny_exports import POSITIONS, sensitised, tiny_args

from titan.export.files import SpecialTokens, make_config
from titan.models.huggingface import hugging_face_model
from titan.models.registry import train_spec
from titan.models.remote_code.routed_decoder import CACHE

TOKENS = SpecialTokens(bos=None, eos=(0,), pad=3, vocabulary=260)


def make_native(kind: str) -> tuple[str, Any, Any]:
    """Family, arguments and model of one of ``KINDS``."""
    family = family_of(kind)
    args = tiny_args(family, **router_of(kind))
    return family, args, sensitised(family, args)


def make_pair(kind: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """The native model, and transformers' with its weights; ``attention`` is the latter's."""
    family, args, native = make_native(kind)
    config = make_config(family, args, TOKENS, POSITIONS)
    config._attn_implementation = attention
    model = hugging_face_model(family, args).model_class()(config)
    adapter = train_spec(family).state_dict_adapter(args, None)
    model.load_state_dict(adapter.to_hf(native.state_dict()))
    model.generation_config.eos_token_id = None
    return native, model.eval()


def prompts(rows: int = 3, tokens: int = 40, seed: int = 0) -> torch.Tensor:
    """Token ids that are neither padding nor an end."""
    return torch.randint(4, 260, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def greedy(model: Any, tokens: torch.Tensor, **settings: Any) -> torch.Tensor:
    settings = {"max_new_tokens": 12, "do_sample": False, **settings}
    settings.setdefault("attention_mask", torch.ones_like(tokens))
    return model.generate(tokens, **settings)[:, tokens.shape[1] :]


def step_by_step(model: Any, tokens: torch.Tensor, lengths: list[int], **settings: Any) -> tuple[torch.Tensor, Any]:
    """Logits of rows that come in pieces, and the cache after them."""
    cache, logits = None, []
    for piece in tokens[:, : sum(lengths)].split(lengths, dim=1):
        output = model(piece, use_cache=True, **{CACHE: cache}, **settings)
        cache = output[CACHE]
        logits.append(output.logits)
    return torch.cat(logits, dim=1), cache


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths with padding before them, and their mask."""
    width = max(map(len, rows))
    tokens = torch.stack([torch.cat([torch.full((width - len(row),), 3), row]) for row in rows])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in rows]).long()
    return tokens, mask
