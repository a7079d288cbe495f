"""Mixtures of experts: their counts and biases, and whole stages on one and two processes."""

from typing import Any

import pytest
import torch
from tiny_stages import VOCAB, Workbench, records
from torch import nn
from torchtitan.models.moe.moe import MoE, MoEArgs
from transformers import AutoModelForCausalLM

from titan.models.experts import keep_biases, mixtures, uncounted
from titan.patches import apply_patches
from titan.weights.stage_model import load_quietly
from titanflow.runs.checkpoints import stored_model
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrainResult, read_result

pytestmark = pytest.mark.slow

apply_patches(["experts_on_cpu"])

SIZE = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": VOCAB}
MLA = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
EXPORTABLE = {"norm_eps": 1e-6, "moe_args.score_func": "sigmoid"}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v3": ("debugmodel", {**SIZE, **MLA, "inter_dim": 128, "moe_inter_dim": 32, **EXPORTABLE}),
    "llama4": ("debugmodel", {**SIZE, "multiple_of": 32}),
    "qwen3": ("debugmodel_moe", {**SIZE, "n_kv_heads": 2, "head_dim": 16, "moe_inter_dim": 32}),
}
BALANCED = ("deepseek_v3", "llama4")
"""The families whose optimizers torchtitan lets even out the experts; in qwen3's the bias stays 0."""
STEPS = 4
VALIDATED = {"validation": {"enable": True, "freq": 1, "local_batch_size": 4}}


def stage(
    bench: Workbench, name: str, family: str, *settings: Any, ranks: int | None = None, **fields: Any
) -> StageRun:
    flavor, sizes = FAMILIES[family]
    config = {"model": {"name": family, "flavor": flavor}, "training": {"steps": STEPS}}
    run = bench.stage(f"{family}-{name}", config, *settings, model_overrides=sizes, **fields)
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


def biases(run: StageRun) -> dict[str, torch.Tensor]:
    checkpoint = run.folder / "checkpoint" / f"step-{STEPS}"
    shapes = stored_model(checkpoint)
    state = {key: torch.empty(shape) for key, shape in shapes.items() if key.endswith("expert_bias")}
    load_quietly(state, checkpoint)
    return state


@pytest.fixture(scope="module")
def one(shared_bench: Workbench) -> dict[str, StageRun]:
    """On one process, with a validation after each step, whose tokens are to count for nothing."""
    tokenizer = shared_bench.data / "tokenizer"
    return {family: stage(shared_bench, "experts", family, VALIDATED, tokenizer=tokenizer) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_ranks_have_the_losses_and_biases_of_one_process_that_validates(
    bench: Workbench, one: dict[str, StageRun], family: str
) -> None:
    two = stage(bench, "two", family, ranks=2)

    expected, found = biases(one[family]), biases(two)
    assert list(records(one[family])) == list(records(one[family], "validation_loss")) == list(range(1, STEPS + 1))
    assert records(two) == pytest.approx(records(one[family]), rel=1e-6)
    assert found.keys() == expected.keys() != set()
    for name, bias in found.items():
        assert torch.equal(bias, expected[name])
        assert bool(bias.any()) is (family in BALANCED)


def test_two_ranks_may_share_the_experts(bench: Workbench, one: dict[str, StageRun]) -> None:
    shared = stage(bench, "shared", "deepseek_v3", {"parallelism": {"expert_parallel_degree": 2}}, ranks=2)

    assert records(shared) == pytest.approx(records(one["deepseek_v3"]), rel=1e-6)


def test_a_stage_exports_what_transformers_computes_and_says_why_it_exports_nothing(one: dict[str, StageRun]) -> None:
    exported = read_result(one["deepseek_v3"].folder)
    assert isinstance(exported, TrainResult)
    assert exported.parity["relative_error"] < 1e-4
    model = AutoModelForCausalLM.from_pretrained(exported.export)
    assert type(model).__name__ == "DeepseekV3ForCausalLM"
    bias = biases(one["deepseek_v3"])["layers.1.moe.expert_bias"]
    assert torch.equal(model.model.layers[1].mlp.gate.e_score_correction_bias, bias)
    for family, reason in dict.fromkeys(("llama4", "qwen3"), "moe_args.load_balance_coeff").items():
        (told,) = [line for line in (one[family].folder / "log.txt").read_text().splitlines() if "no export:" in line]
        assert reason in told


def mixture() -> MoE:
    layer = MoE(MoEArgs(num_experts=4, top_k=2), dim=8, hidden_dim=16)
    with torch.no_grad():
        layer.init_weights(init_std=0.1, buffer_device=torch.device("cpu"))
    return layer


def test_counts_stay_as_they_were() -> None:
    layer = mixture()
    layer(torch.randn(1, 6, 8))
    before = layer.tokens_per_expert.clone()
    assert before.sum() == 12

    with uncounted([nn.Sequential(layer)]):
        layer(torch.randn(1, 6, 8))
        assert layer.tokens_per_expert.sum() == 24

    assert torch.equal(layer.tokens_per_expert, before)


def test_a_model_with_adapters_keeps_its_bases_biases() -> None:
    model = nn.Sequential(nn.Linear(8, 8), mixture())
    keep_biases(model)

    assert [layer.load_balance_coeff for layer in mixtures([model])] == [None]
    assert "1.expert_bias" in model.state_dict()
