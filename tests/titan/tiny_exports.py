"""Tiny models with weights that show a conversion mistake, their checkpoints, and a tokenizer of bytes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torchtitan.models.llama4.model.args import RoPEScalingArgs
from torchtitan.models.moe import MoEArgs

from titan.models.registry import train_spec
from titan.weights.stage_model import TrainedModel, named_weights

POSITIONS = 256
VOCAB = 300
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, dict[str, Any]] = {
    "llama3": {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 32, "rope_theta": 10_000.0},
    "qwen3": {
        "dim": 64,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 32,
        "hidden_dim": 96,
        "enable_weight_tying": False,
    },
    "qwen2": {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 96, "enable_weight_tying": False},
    "deepseek_v3": {
        "dim": 64,
        "n_layers": 3,
        "n_heads": 4,
        "inter_dim": 96,
        "moe_inter_dim": 32,
        "norm_eps": 1e-6,
        "q_lora_rank": 24,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
        "original_seq_len": 64,
        "rope_factor": 4.0,
        "beta_fast": 8,
        "moe_args": MoEArgs(
            num_experts=8,
            num_shared_experts=2,
            score_func="sigmoid",
            route_norm=True,
            route_scale=2.5,
            score_before_experts=False,
            top_k=2,
            num_expert_groups=4,
            num_limited_groups=2,
        ),
    },
}
SIZES["llama4"] = {
    **{"dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 32, "rope_theta": 10_000.0},
    **{"every_n_layers_nope": 4, "rope_scaling_args": RoPEScalingArgs(4.0, 1.0, 4.0, 64)},
    "moe_args": MoEArgs(num_experts=8, num_shared_experts=1, score_func="sigmoid", top_k=2, load_balance_coeff=None),
}
for routed in ("mod", "dtf", "tdtf"):
    SIZES[routed] = SIZES["qwen2"] | {"n_layers": 4}
for surprised in ("dtf", "tdtf"):
    SIZES[surprised]["moving_average_window"] = 9
QWEN3_EXPERTS: dict[str, Any] = {
    "moe_enabled": True,
    "moe_inter_dim": 32,
    "moe_args": MoEArgs(
        num_experts=8,
        num_shared_experts=0,
        score_func="softmax",
        route_norm=True,
        score_before_experts=False,
        top_k=2,
        load_balance_coeff=None,
    ),
}
"""What makes a qwen3 one with experts, as transformers has it."""


def write_byte_tokenizer(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A tokenizer of single bytes with the project's special tokens: any text goes in and comes out."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def tiny_args(family: str, **changes: Any) -> Any:
    """Arguments of a model of some 100,000 parameters; nested ones by a dataclass."""
    default = train_spec(family).model_args["debugmodel"]
    return dataclasses.replace(default, vocab_size=VOCAB, max_seq_len=POSITIONS, **(SIZES[family] | changes))


def sensitised(family: str, args: Any, seed: int = 0) -> Any:
    """A native model whose logits feel every weight: attention, router and feed-forward scaled up, norms away from 1,
    biases away from 0."""
    spec = train_spec(family)
    torch.manual_seed(seed)
    model = spec.model_cls(args)
    with torch.no_grad():
        model.init_weights()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.uniform_(-0.5, 0.5)
            elif re.search(r"\.(w[qkv]|wq_b|wkv_a|wkv_b|moe\.router\.gate)\.", name):
                parameter.mul_(12)
            elif re.search(r"\.(router|causal_router|predictor|prior|transition|student)\..*weight", name):
                parameter.mul_(10)
            elif re.search(r"\.router\.beta", name):
                parameter.uniform_(2, 4)
            elif re.search(r"\.router\.", name):
                parameter.uniform_(0.6, 0.7)
            elif re.search(r"\.(wo|w2)(\.|$)", name):
                parameter.mul_(6)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
        for name, buffer in model.named_buffers():
            if name.endswith("expert_bias"):
                buffer.uniform_(-0.3, 0.3)
    return model.eval()


def save_checkpoint(model: Any, folder: Path, **others: Any) -> Path:
    """Saves a model as torchtitan does: its keys flat at the top, ``others`` beside them."""
    dcp.save({**model.state_dict(), **others}, checkpoint_id=folder)
    return folder


def write_tiny_export(folder: Path) -> Path:
    """A sensitised llama3 as transformers loads it, with a tokenizer of single bytes."""
    from titan.export.export import export_model

    args = tiny_args("llama3")
    checkpoint = save_checkpoint(sensitised("llama3", args), folder / "step-1")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    return export_model(model_at(checkpoint, "llama3", args, tokenizer), folder / "out").folder


def model_at(
    checkpoint: Path, family: str, args: Any, tokenizer: Path | None = None, positions: int = POSITIONS, **texts: Any
) -> TrainedModel:
    """What a checkpoint stands for, in a stage or outside of one."""
    return TrainedModel(family, args, positions, tokenizer, weights=named_weights(checkpoint), **texts)
