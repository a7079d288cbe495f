"""Tiny exports, and what a wrong conversion would have made of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tiny_exports import model_at, save_checkpoint, sensitised, tiny_args

from titan.export.export import export_model
from titan.models.registry import train_spec

Edit = Callable[[Path], None]


class Exported(NamedTuple):
    """A sensitised model and its export."""

    args: Any
    native: Any
    adapter: Any
    folder: Path

    def copy(self, folder: Path, edit: Edit) -> Path:
        """Another folder with the same export, edited."""
        shutil.copytree(self.folder, folder)
        edit(folder)
        return folder


def export_tiny(folder: Path, name: str, changes: dict[str, Any], tokenizer: Path) -> Exported:
    """Exports a sensitised model, of embeddings so small that the norms' eps counts.

    ``name`` is that of a family, with a variant's behind a dash.
    """
    family = name.partition("-")[0]
    args = tiny_args(family, **changes)
    native = sensitised(family, args)
    with torch.no_grad():
        native.tok_embeddings.weight.mul_(0.05)
    checkpoint = save_checkpoint(native, folder / f"{name}-checkpoint")
    export_model(model_at(checkpoint, family, args, tokenizer), folder / name)
    return Exported(args, native, train_spec(family).state_dict_adapter(args, None), folder / name)


def read_config(folder: Path) -> dict[str, Any]:
    """What the export's ``config.json`` says."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def edit_config(folder: Path, **changes: Any) -> None:
    """Lets ``config.json`` say something else."""
    (folder / "config.json").write_text(json.dumps(read_config(folder) | changes))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Writes other weights."""
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")


def swap(first: str, second: str) -> Edit:
    """Two weights change places, in each layer and expert."""

    def edit(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if first in key]:
            other = key.replace(first, second)
            weights[key], weights[other] = weights[other], weights[key]

    return lambda folder: edit_weights(folder, edit)


def permute_rope(folder: Path) -> None:
    """Interleaves the two halves that RoPE turns, as if they had never been parted, or should have been."""
    config = read_config(folder)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def edit(weights: dict[str, torch.Tensor]) -> None:
        for key, value in weights.items():
            count = heads.get(key.split(".")[-2])
            if count:
                halves = value.view(count, 2, value.shape[0] // count // 2, -1)
                weights[key] = halves.transpose(1, 2).reshape(value.shape)

    edit_weights(folder, edit)


def edit_rope(folder: Path, **changes: Any) -> None:
    """Lets the config say something else of RoPE, where transformers 5 looks and where 4 does."""
    written = read_config(folder)
    parameters = {**written["rope_parameters"], **changes}
    scaling = None if parameters["rope_type"] == "default" else parameters
    edit_config(folder, rope_parameters=parameters, rope_theta=parameters["rope_theta"], rope_scaling=scaling)


def rope_says(**changes: Any) -> Edit:
    """The config says something else of RoPE."""
    return lambda folder: edit_rope(folder, **changes)


def eps_times_ten(folder: Path) -> None:
    """The norms' eps is ten times as large."""
    edit_config(folder, rms_norm_eps=read_config(folder)["rms_norm_eps"] * 10)


def rotate_experts(folder: Path) -> None:
    """Each expert is put in its neighbour's place, while the router stays."""

    def edit(weights: dict[str, torch.Tensor]) -> None:
        experts = {key: value for key, value in weights.items() if ".mlp.experts." in key}
        count = 1 + max(int(key.split(".experts.")[1].split(".")[0]) for key in experts)
        for key in experts:
            weights[key] = experts[re.sub(r"experts\.(\d+)", lambda one: f"experts.{(int(one[1]) + 1) % count}", key)]

    edit_weights(folder, edit)


def roll_joined_experts(folder: Path) -> None:
    """The same of experts that are one tensor."""

    def edit(weights: dict[str, torch.Tensor]) -> None:
        for key, value in weights.items():
            if ".feed_forward.experts." in key:
                weights[key] = value.roll(1, dims=0).contiguous()

    edit_weights(folder, edit)


def drop_correction(folder: Path) -> None:
    """The bias that corrects the choice of experts is forgotten."""

    def edit(weights: dict[str, torch.Tensor]) -> None:
        for key, value in weights.items():
            if key.endswith("e_score_correction_bias"):
                weights[key] = torch.zeros_like(value)

    edit_weights(folder, edit)


def config_says(**changes: Any) -> Edit:
    """``config.json`` says something else."""
    return lambda folder: edit_config(folder, **changes)


MUTANTS: dict[str, Edit] = {
    "RoPE permuted": permute_rope,
    "norms swapped": swap("input_layernorm", "post_attention_layernorm"),
    "gate and up swapped": swap("gate_proj", "up_proj"),
    "RoPE scaling dropped": rope_says(rope_type="default"),
    "another theta": rope_says(rope_theta=5e5),
    "eps times ten": eps_times_ten,
    "experts permuted": rotate_experts,
    "joined experts permuted": roll_joined_experts,
    "RoPE in each layer": config_says(no_rope_layers=[1, 1, 1, 1]),
    "queries and keys normed": config_says(use_qk_norm=True),
    "one expert chosen": config_says(num_experts_per_tok=1),
    "correction bias dropped": drop_correction,
    "RoPE of halves": config_says(rope_interleave=False),
    "softmax scale of YaRN dropped": rope_says(mscale_all_dim=0.0),
    "experts chosen among all": config_says(n_group=1, topk_group=1),
    "scores not normalised": config_says(norm_topk_prob=False),
    "scores not scaled": config_says(routed_scaling_factor=1.0),
}
"""What an adapter or a config has been seen to get wrong."""
