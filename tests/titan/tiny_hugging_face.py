"""Tiny models as transformers saves them, with weights that show a conversion mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tiny_exports import POSITIONS, VOCAB, write_byte_tokenizer

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 3e-6,
    "bos_token_id": None,
    "eos_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"intermediate_size": 160},
    "Qwen3ForCausalLM": {"intermediate_size": 96, "head_dim": 32},
    "Qwen2ForCausalLM": {"intermediate_size": 96},
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def write_hugging_face(folder: Path, architecture: str, dtype: Any = torch.float32, **changes: Any) -> Any:
    """Saves a model with its tokenizer into ``folder``, and returns it."""
    import transformers

    config_class = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config_class(**(COMMON | OWN[architecture] | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.uniform_(-0.5, 0.5)
            elif re.search(r"\.[qkv]_proj\.", name):
                parameter.mul_(12)
            elif re.search(r"\.(o|down)_proj\.", name):
                parameter.mul_(6)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    write_byte_tokenizer(folder)
    model.to(dtype).save_pretrained(folder)
    return model.float().eval()
