"""Writes the GGUF file of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titan.gguf.tensors import head_dim, stored_as, weights
from titan.gguf.vocabulary import Vocabulary
from titanflow.architectures.families.registry import FAMILIES
from titanflow.common.errors import StageFailed

FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
"""The formats of weights, each with its name in ``gguf.LlamaFileType``."""


def write_gguf(folder: Path, path: Path, kind: str, name: str) -> None:
    """Writes ``path`` with the weights of ``folder`` in the format ``kind``; the same folder gives the same bytes.

    ``name`` is what the file calls the model.

    Raises:
        ConfigError: llama.cpp can't follow the tokenizer.
        StageFailed: the model has something that llama.cpp's architecture lacks.
    """
    import gguf

    config = read_config(folder)
    architecture = next(one for one, known in gguf.MODEL_ARCH_NAMES.items() if known == config["model_type"])
    vocabulary = Vocabulary.read(folder, config["vocab_size"])
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_architecture(writer, config)
    vocabulary.add_to(writer)
    formats = {}
    # The names and sizes of all tensors stand before the first one's data.
    for tensor, values in weights(folder, config, architecture):
        formats[tensor] = stored = gguf.GGMLQuantizationType[stored_as(tensor, values.shape, kind).upper()]
        size = gguf.quant_shape_to_byte_shape(values.shape, stored)
        count = 1
        for length in size:
            count *= length
        writer.add_tensor_info(tensor, values.shape, values.dtype, count, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, values in weights(folder, config, architecture):
        writer.write_tensor_data(gguf.quants.quantize(values, formats[tensor]))
    writer.close()


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``.

    Raises:
        StageFailed: it is of a kind that isn't written here.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = {"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False}
    wrong = [f"{key} is {config[key]!r}" for key, value in expected.items() if config.get(key, value) != value]
    if config["model_type"] not in {family.llama_cpp for family in FAMILIES.values() if family.llama_cpp}:
        wrong.append(f"model_type is {config['model_type']!r}")
    if wrong:
        raise StageFailed(f"{folder}: no GGUF file can be written: {', '.join(wrong)}")
    return config


def add_architecture(writer: Any, config: Mapping[str, Any]) -> None:
    """Adds the keys that say how the model computes."""
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
