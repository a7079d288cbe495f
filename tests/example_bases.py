"""The Hub as the shipped examples need it: each base under its own name, as published or of some kilobytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hub_storage import Blob, Repo
from local_hub import LocalHub
from qwen2_repository import CONFIG, REPO, TINY, write_tokenizer

THINKING = "Qwen/Qwen3-0.6B"
_QWEN3 = {
    **{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "head_dim": 128},
    **{"hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28},
    **{"num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_scaling": None},
    **{"eos_token_id": 151645, "sliding_window": None},
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    REPO: CONFIG,
    "Qwen/Qwen2.5-1.5B-Instruct": {
        **CONFIG,
        **{"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_hidden_layers": 28},
        **{"max_window_layers": 28, "eos_token_id": 151645},
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **CONFIG,
        **{"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_hidden_layers": 28},
        **{"num_key_value_heads": 4, "max_window_layers": 28, "vocab_size": 152064, "tie_word_embeddings": False},
        **{"eos_token_id": 151645},
    },
    THINKING: {**CONFIG, **_QWEN3},
}
"""Each base's ``config.json``, key for key what decides about its size."""
THOUGHTS = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen3's: the thoughts of earlier turns are dropped."""


def publish_bases(hub: LocalHub, is_tiny: bool) -> None:
    """Puts every base there; as published, their weights are empty, since a plan reads none."""
    for name in PUBLISHED:
        files = {file: Blob(data, file.endswith(".safetensors")) for file, data in _files(name, is_tiny).items()}
        hub.repos.setdefault(name, Repo(private=False)).commit("main", "as published", files)


@cache
def _files(name: str, is_tiny: bool) -> dict[str, bytes]:
    config = {**PUBLISHED[name], **(TINY if is_tiny else {})}
    if is_tiny and "head_dim" in config:
        config["head_dim"] = 16
    with TemporaryDirectory() as folder:
        path = write_tokenizer(Path(folder))
        if name == THINKING:
            (path / "chat_template.jinja").write_text(THOUGHTS, encoding="utf-8")
        (path / "model.safetensors").write_bytes(b"weights")
        if is_tiny:
            _write_weights(path, config)
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return {file.name: file.read_bytes() for file in path.iterdir()}


def _write_weights(folder: Path, config: Mapping[str, Any]) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    name = config["architectures"][0]
    made = getattr(transformers, name.replace("ForCausalLM", "Config"))(**config)
    getattr(transformers, name)(made).to(torch.bfloat16).save_pretrained(folder)
