"""The weights of an exported folder by llama.cpp's names and in its order of rows, one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.architectures.huggingface import INDEX
from titanflow.common.errors import StageFailed

FREQUENCIES = "rope_freqs.weight"
"""llama.cpp divides each frequency of RoPE by the number that this tensor has for it."""
BLOCK = 32
"""Weights that share a scale in q8_0; a row must hold whole blocks."""
Tensor = NDArray[np.float32]


def weights(folder: Path, config: Mapping[str, Any], architecture: int) -> Iterator[tuple[str, Tensor]]:
    """Each weight by its name in a GGUF file, as float32; of all weights one is in memory.

    ``architecture`` is a ``gguf.MODEL_ARCH``.

    Raises:
        StageFailed: llama.cpp's architecture has no place for a weight.
    """
    import gguf
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH(architecture), config["num_hidden_layers"])
    with ExitStack() as stack:
        for path in weight_files(folder):
            file = stack.enter_context(safe_open(path, "pt"))
            for key in sorted(file.keys()):
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise StageFailed(f"{path}: {key} has no place in llama.cpp's {config['model_type']}")
                yield name, in_order(key, file.get_tensor(key).float().numpy(), config)
    if (factors := frequency_factors(config)) is not None:
        yield FREQUENCIES, factors


def weight_files(folder: Path) -> list[Path]:
    """The folder's files of weights, as its index lists them."""
    if not (folder / INDEX).is_file():
        return [folder / "model.safetensors"]
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def in_order(key: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Puts a llama's rows of queries and keys into llama.cpp's order.

    llama.cpp rotates neighbouring pairs of a llama's rows, transformers the first half against the second. For Qwen
    both rotate halves.
    """
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(key.split(".")[-2])
    if heads is None or config["model_type"] != "llama":
        return tensor
    by_half = tensor.reshape(config[heads], 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(by_half.swapaxes(1, 2)).reshape(tensor.shape)


def frequency_factors(config: Mapping[str, Any]) -> Tensor | None:
    """Llama 3's scaling of RoPE, shape ``[head_dim / 2]``; None without scaling.

    Long waves are slowed by the factor, short ones stay, and those between get a share.
    """
    rope = config["rope_parameters"]
    if rope["rope_type"] == "default":
        return None
    if rope["rope_type"] != "llama3" or config["model_type"] != "llama":
        raise StageFailed(f"llama.cpp's {config['model_type']} has no RoPE of the type {rope['rope_type']}")
    half = head_dim(config) // 2
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(half) / half)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    # 0 for waves that are too long for the original context, 1 for those that fit into it often enough.
    kept = np.clip((rope["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - kept) / factor + kept)).astype(np.float32)


def head_dim(config: Mapping[str, Any]) -> int:
    """The width of a head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def stored_as(name: str, shape: tuple[int, ...], kind: str) -> str:
    """The format of one tensor in a file of format ``kind``: vectors stay float32, short rows become f16 at least."""
    if len(shape) < 2:
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % BLOCK else kind
