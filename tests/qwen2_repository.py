"""Qwen/Qwen2.5-0.5B on the local Hub: its ``config.json`` key for key, and weights of some kilobytes in its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub_storage import Blob, Repo
from local_hub import LocalHub

from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.data.tokenizer.words import QWEN2

REPO = "Qwen/Qwen2.5-0.5B"
CONFIG: Mapping[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
"""As published."""
TINY: Mapping[str, Any] = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_window_layers": 4, "vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0},
}
"""What a test that needs weights changes of it."""
TINY_ARGS = {"dim": 64, "hidden_dim": 96, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 320}
"""The same as torchtitan's arguments."""


def write_tokenizer(folder: Path) -> Path:
    """A small tokenizer that parts words as Qwen2's does, described with the keys of the published one."""
    train_tokenizer(["The stone is red. I saw 1 of them.\n"] * 20, 300, folder, words=QWEN2)
    path = folder / "tokenizer_config.json"
    published = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "unk_token": None, "errors": "replace"}
    published |= {"add_prefix_space": False, "split_special_tokens": False, "model_max_length": 32768}
    path.write_text(json.dumps(json.loads(path.read_text()) | published))
    return folder


def write_weights(folder: Path, shard: str = "1GB") -> Any:
    """The tiny model as it would be published: bfloat16, tied embeddings, safetensors of at most ``shard`` each.

    Returns the model of transformers'; its biases and norms aren't what they are drawn with.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG | TINY))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(*((-0.5, 0.5) if name.endswith(".bias") else (0.5, 1.5)))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    (folder / "config.json").write_text(json.dumps(CONFIG | TINY))
    return model


def upload(hub: LocalHub, folder: Path, **config: Any) -> Repo:
    """The repository with a folder's files, and ``config`` over the ``config.json`` that is published."""
    files = {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in folder.iterdir()}
    files["config.json"] = Blob(json.dumps(CONFIG | config).encode())
    repo = hub.repos.setdefault(REPO, Repo(private=False))
    repo.commit("main", "as published", files)
    return repo
