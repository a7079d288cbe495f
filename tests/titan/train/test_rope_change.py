"""Longer rows with another RoPE: trained, exported as transformers has it, and with the same logits in both."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_adapters import finished_base
from tiny_exports import tiny_args
from tiny_stages import SEQ_LEN, Workbench
from transformers import AutoModelForCausalLM

from titan.weights.native import load_native
from titan.weights.stage_model import read_model
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

LONGER = 2 * SEQ_LEN
Args = dict[str, Any]
FAMILIES: dict[str, tuple[Args, Args, Args]] = {
    "llama3": (
        {},
        {"rope_theta": 40000.0, "rope_scaling_args.scaling_factor": 4.0},
        {"rope_theta": 40000.0, "rope_type": "llama3", "factor": 4.0},
    ),
    "qwen3": ({}, {"rope_theta": 5000000.0}, {"rope_theta": 5000000.0, "rope_type": "default"}),
    "deepseek_v3": (
        {"rope_factor": 1.0},
        {"rope_factor": 2.0, "original_seq_len": SEQ_LEN},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": SEQ_LEN},
    ),
}
"""Of each family what its base has of its own, what the longer rows' stage changes, and what is exported."""


@pytest.mark.parametrize("family", FAMILIES)
def test_longer_rows_with_another_rope_have_the_same_logits_in_transformers(bench: Workbench, family: str) -> None:
    own, changes, exported = FAMILIES[family]
    args = replace(tiny_args(family), max_seq_len=SEQ_LEN, **own)
    model = {"name": family, "flavor": "debugmodel"}
    base = finished_base(bench.folder / "base", family, args, config={"training": {"seq_len": SEQ_LEN}, "model": model})
    run = bench.stage(
        "longer",
        {"model": model, "training": {"steps": 2, "seq_len": LONGER}, "validation": {"seq_len": LONGER}},
        {"model": {"change_rope": True}},
        base=base,
        model_overrides=changes,
        data=PreparedData(train=bench.data / "train"),
        tokenizer=bench.data / "tokenizer",
    )
    assert bench.run(run, 1) == 0, (run.folder / "log.txt").read_text()
    result = read_result(run.folder)
    changed = [row.key for row in result.inheritance if row.how == "changed"]
    assert {f"model.{key}" for key in changes} <= set(changed)
    config = json.loads((result.export / "config.json").read_text())
    assert config["max_position_embeddings"] == LONGER
    assert {key: config["rope_parameters"][key] for key in exported} == exported
    tokens = torch.randint(256, (2, LONGER), generator=torch.Generator().manual_seed(0))
    native = load_native(read_model(run.folder))
    transformers = AutoModelForCausalLM.from_pretrained(result.export, dtype=torch.float32)
    with torch.no_grad():
        expected = native(tokens)
        torch.testing.assert_close(transformers(tokens).logits, expected, rtol=1e-4, atol=1e-4)
        # With the base's RoPE the same weights compute something else.
        unchanged = load_native(replace(read_model(run.folder), args=args))
        assert (unchanged(tokens) - expected).abs().max() > 1e-3
