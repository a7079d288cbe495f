"""A routed model's adapter, its routers saved whole, is what peft loads onto the base's export."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_adapters import finished_base, finished_lora
from tiny_exports import VOCAB, tiny_args, write_byte_tokenizer

from titan.export.export import export_checkpoint
from titan.export.parity import TOLERANCE
from titan.export.peft_adapter import write_peft_adapter
from titan.weights.hf_folder import load_folder
from titan.weights.stage_model import read_model
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.weights import module_names
from titanflow.config.settled.lora_presets import ROUTED, TOKENS, expanded

pytestmark = pytest.mark.slow

TOKEN_IDS = torch.arange(60)[None] * 7 % VOCAB


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(TOKEN_IDS).logits


def saves(names: list[str], module: str) -> bool:
    return any(f".{module}".endswith(f".{name}") for name in names)


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
def test_peft_computes_what_the_merged_export_does(tmp_path: Path, family: str) -> None:
    args = tiny_args(family)
    linears, others = module_names(family, asdict(args))
    lora = {"rank": 2, "modules_to_save": expanded([ROUTED, TOKENS], family, [*linears, *others])}
    base = finished_base(tmp_path / "base", family, args, tokenizer=write_byte_tokenizer(tmp_path / "tokenizer"))
    export_checkpoint(base, base / "export")
    stage = finished_lora(tmp_path / "sft", base, family, args, lora)
    expected = logits(load_folder(export_checkpoint(stage, stage / "export").folder, torch.float32)[0])
    adapter = write_peft_adapter(read_model(stage), stage / "adapter")
    saved = json.loads((adapter / "adapter_config.json").read_text())["modules_to_save"]
    assert len(saved) == len(set(saved)) == sum(saves(lora["modules_to_save"], name) for name in [*linears, *others])
    untouched = load_folder(base / "export", torch.float32)[0]
    before = logits(untouched)
    found = logits(PeftModel.from_pretrained(untouched, adapter))
    scale = expected.abs().max()
    assert (found - expected).abs().max() / scale < TOLERANCE
    assert (before - expected).abs().max() / scale > 0.1
