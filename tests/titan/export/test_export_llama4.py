"""A trained llama4, exported with its dense layers, and a checkpoint of it that transformers saved loaded again."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_stages import VOCAB
from transformers import AutoModelForCausalLM

from titan.models.llama4.adapter import Llama4TextStateDictAdapter
from titan.patches.llama4_adapter import PATCH
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

SIZE = {"dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 32, "vocab_size": VOCAB}
UNBIASED = {"moe_args.load_balance_coeff": None, "every_n_layers_nope": 4}


def test_torchtitans_adapter_knows_no_dense_layer() -> None:
    assert PATCH.needed()


def test_what_a_stage_trained_is_what_transformers_loads_and_begins_another(bench) -> None:
    config = {"model": {"name": "llama4", "flavor": "debugmodel"}, "training": {"steps": 3}}
    fields = {"model_overrides": SIZE | UNBIASED, "tokenizer": bench.data / "tokenizer"}
    run = bench.stage("first", config, **fields)
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    result = read_result(run.folder)
    assert result.parity["relative_error"] < 1e-4
    model = AutoModelForCausalLM.from_pretrained(result.export)
    assert type(model).__name__ == "Llama4ForCausalLM"
    assert [type(layer.feed_forward).__name__ for layer in model.model.layers] == ["Llama4TextMLP", "Llama4TextMoe"] * 2
    begins = {"checkpoint": {"initial_load_in_hf": True, "initial_load_path": str(result.export)}}
    still = {"training": {"steps": 1}, "optimizer": {"lr": 0.0}, "lr_scheduler": {"warmup_steps": 0}}
    again = bench.stage("second", config, begins, still, **fields)
    assert bench.run(again) == 0, (again.folder / "log.txt").read_text()
    first, second = (load_file(read_result(one.folder).export / "model.safetensors") for one in (run, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_bias_of_the_experts_is_no_weight_of_transformers() -> None:
    weights = {"layers.1.moe.expert_bias": torch.zeros(4), "norm.weight": torch.ones(2)}
    assert list(Llama4TextStateDictAdapter(None, None).to_hf(weights)) == ["model.norm.weight"]
