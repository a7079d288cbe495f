"""Qwen2.5 (arXiv:2412.15115) for torchtitan: ``experimental.custom_import: titan.models.qwen2``."""

from __future__ import annotations

from typing import Any

from torchtitan.components.loss import build_cross_entropy_loss
from torchtitan.components.lr_scheduler import build_lr_schedulers
from torchtitan.components.optimizer import build_optimizers
from torchtitan.components.tokenizer import build_hf_tokenizer
from torchtitan.components.validate import build_validator
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import build_text_dataloader
from torchtitan.protocols.train_spec import TrainSpec, register_train_spec

from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model

from .infra.parallelize import parallelize_qwen2
from .model.args import Qwen2ModelArgs
from .model.model import Qwen2Model
from .model.state_dict_adapter import Qwen2StateDictAdapter

SIZES: dict[str, dict[str, Any]] = {
    "debugmodel": {"dim": 128, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 256, "vocab_size": 2048},
    # Made for training from scratch: as wide and deep as their data, with a vocabulary to match.
    "10M": {"dim": 384, "n_layers": 6, "n_heads": 6, "n_kv_heads": 2, "hidden_dim": 1024, "vocab_size": 2048},
    "50M": {"dim": 512, "n_layers": 12, "n_heads": 8, "n_kv_heads": 2, "hidden_dim": 1408, "vocab_size": 32768},
    "150M": {"dim": 768, "n_layers": 20, "n_heads": 12, "n_kv_heads": 4, "hidden_dim": 2048, "vocab_size": 32768},
    # As published.
    "0.5B": {"dim": 896, "n_layers": 24, "n_heads": 14, "n_kv_heads": 2, "hidden_dim": 4864, "vocab_size": 151936},
    "1.5B": {"dim": 1536, "n_layers": 28, "n_heads": 12, "n_kv_heads": 2, "hidden_dim": 8960, "vocab_size": 151936},
    "3B": {"dim": 2048, "n_layers": 36, "n_heads": 16, "n_kv_heads": 2, "hidden_dim": 11008, "vocab_size": 151936},
    "7B": {"dim": 3584, "n_layers": 28, "n_heads": 28, "n_kv_heads": 4, "hidden_dim": 18944, "vocab_size": 152064},
}
"""The shapes of Qwen2.5, by flavor; the families that build on it have the same."""

SETTINGS: dict[str, dict[str, Any]] = {
    "debugmodel": {"enable_weight_tying": True, "max_seq_len": 4096, "rope_theta": 10_000.0},
    "10M": {"enable_weight_tying": True, "max_seq_len": 4096, "rope_theta": 10_000.0},
    "50M": {"enable_weight_tying": True, "max_seq_len": 4096, "rope_theta": 10_000.0},
    "150M": {"enable_weight_tying": True, "max_seq_len": 4096, "rope_theta": 10_000.0},
    "0.5B": {"enable_weight_tying": True, "max_seq_len": 32768},
    "1.5B": {"enable_weight_tying": True, "max_seq_len": 131072},
    "3B": {"enable_weight_tying": True, "max_seq_len": 32768},
    "7B": {"enable_weight_tying": False, "max_seq_len": 131072},
}

FLAVORS = {name: SIZES[name] | SETTINGS[name] for name in SIZES}
"""All that a flavor sets of :class:`Qwen2ModelArgs`."""

qwen2_args = {name: Qwen2ModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_qwen2_config(args: Qwen2ModelArgs, common: dict[str, Any]) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**qwen2_settings(args, common))


def qwen2_settings(args: Qwen2ModelArgs, common: dict[str, Any]) -> dict[str, Any]:
    """A config's settings for this family, or one that builds on it.

    They lack ``attention_bias``: Qwen2.5 always has biases on queries, keys and values.
    """
    return {
        **{key: value for key, value in common.items() if key != "attention_bias"},
        "intermediate_size": args.hidden_dim,
        "use_sliding_window": False,
        "tie_word_embeddings": args.enable_weight_tying,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(args.rope_theta)},
    }


register_train_spec(
    "qwen2",
    TrainSpec(
        model_cls=Qwen2Model,
        model_args=qwen2_args,
        parallelize_fn=parallelize_qwen2,
        pipelining_fn=pipeline_llm,
        build_optimizers_fn=build_optimizers,
        build_lr_schedulers_fn=build_lr_schedulers,
        build_dataloader_fn=build_text_dataloader,
        build_tokenizer_fn=build_hf_tokenizer,
        build_loss_fn=build_cross_entropy_loss,
        build_validator_fn=build_validator,
        state_dict_adapter=Qwen2StateDictAdapter,
    ),
)
register_hugging_face_model("qwen2", HuggingFaceModel("Qwen2ForCausalLM", make_qwen2_config))
