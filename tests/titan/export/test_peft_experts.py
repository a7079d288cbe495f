"""Adapters of families with experts: what peft loads onto the base's export, and what it can't be told of."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_adapters import finished_base, finished_lora
from tiny_exports import QWEN3_EXPERTS, VOCAB, tiny_args, write_byte_tokenizer

from titan.export.export import export_checkpoint
from titan.export.parity import TOLERANCE
from titan.export.peft_adapter import write_peft_adapter
from titan.weights.hf_folder import load_folder
from titan.weights.stage_model import read_model
from titanflow.architectures.weights import module_names
from titanflow.common.errors import ConfigError
from titanflow.config.checks.lora import find_modules, peft_problems
from titanflow.config.keys.training import Lora

TOKEN_IDS = torch.arange(60)[None] * 7 % VOCAB
ATTENTION, HEADS = ["attention.*"], ["tok_embeddings", "output"]
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3, its router adapted": ("qwen3", QWEN3_EXPERTS, {"target_modules": [*ATTENTION, "gate"]}),
    "qwen3, its router whole": ("qwen3", QWEN3_EXPERTS, {"modules_to_save": ["gate", *HEADS]}),
    "llama4, attention": ("llama4", {}, {"target_modules": ATTENTION, "modules_to_save": HEADS}),
    "llama4, router and experts whole": (
        "llama4",
        {},
        {"target_modules": ATTENTION, "modules_to_save": ["gate", "moe.experts", "shared_experts.w1"]},
    ),
    "deepseek_v3, its router whole": (
        "deepseek_v3",
        {},
        {"target_modules": ATTENTION, "modules_to_save": ["gate", *HEADS]},
    ),
}
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "experts, joined": (
        "qwen3",
        QWEN3_EXPERTS,
        {"modules_to_save": ["moe.experts"]},
        "transformers joins the matrices of moe.experts as it loads them",
    ),
    "experts, joined, of deepseek_v3": (
        "deepseek_v3",
        {},
        {"target_modules": ATTENTION, "modules_to_save": ["moe.experts"]},
        "transformers joins the matrices of moe.experts as it loads them",
    ),
    "router of llama4": ("llama4", {}, {"target_modules": ["wq", "gate"]}, "peft's adapter breaks moe.router.gate"),
    "llama4 as unset": ("llama4", {}, {}, "peft takes adapters on feed_forward.w1, feed_forward.w2"),
}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(TOKEN_IDS).logits


@pytest.mark.slow
@pytest.mark.parametrize(("family", "changes", "lora"), FAMILIES.values(), ids=FAMILIES)
def test_peft_computes_what_the_merged_export_does(
    tmp_path: Path, family: str, changes: dict[str, Any], lora: dict[str, Any]
) -> None:
    args = tiny_args(family, **changes)
    base = finished_base(tmp_path / "base", family, args, tokenizer=write_byte_tokenizer(tmp_path / "tokenizer"))
    export_checkpoint(base, base / "export")
    stage = finished_lora(tmp_path / "sft", base, family, args, {"rank": 2, **lora})
    expected = logits(load_folder(export_checkpoint(stage, stage / "export").folder, torch.float32)[0])
    untouched = load_folder(base / "export", torch.float32)[0]
    before = logits(untouched)
    found = logits(PeftModel.from_pretrained(untouched, write_peft_adapter(read_model(stage), stage / "adapter")))
    scale = expected.abs().max()
    assert (found - expected).abs().max() / scale < TOLERANCE
    assert (before - expected).abs().max() / scale > 0.1


@pytest.mark.parametrize(("family", "changes", "lora", "message"), REFUSED.values(), ids=REFUSED)
def test_what_peft_would_pass_over_or_break_is_known_before(
    tmp_path: Path, family: str, changes: dict[str, Any], lora: dict[str, Any], message: str
) -> None:
    args = tiny_args(family, **changes)
    linears, others = module_names(family, asdict(args))
    found, problems = find_modules(Lora(rank=2, **lora), linears, others, tied=False)
    assert problems == []
    (problem,) = peft_problems(family, found, linears)
    assert message in problem.message
    assert (problem.key, problem.expected) == ("lora.peft_adapter", "false")


def test_the_command_refuses_what_the_plan_does(tmp_path: Path) -> None:
    args = tiny_args("qwen3", **QWEN3_EXPERTS)
    base = finished_base(tmp_path / "base", "qwen3", args)
    stage = finished_lora(tmp_path / "sft", base, "qwen3", args, {"rank": 2, "modules_to_save": ["moe.experts"]})
    with pytest.raises(ConfigError, match=r"joins the matrices of moe\.experts"):
        write_peft_adapter(read_model(stage), stage / "adapter")
    assert not (stage / "adapter").exists()
