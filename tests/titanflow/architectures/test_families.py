from typing import Any

import pytest

from titanflow.architectures.families.registry import (
    OWN_FAMILIES,
    PARAMETER_GROUPS,
    export_refusal,
    packing_refusals,
    routed_refusals,
)

EXPERTS: dict[str, dict[str, Any]] = {
    "llama4": {
        "score_func": "sigmoid",
        "score_before_experts": True,
        "num_shared_experts": 1,
        "load_balance_coeff": None,
    },
    "deepseek_v3": {
        "score_func": "sigmoid",
        "score_before_experts": False,
        "gate_bias": False,
        "num_shared_experts": 1,
    },
    "qwen3": {
        "score_func": "softmax",
        "score_before_experts": False,
        "gate_bias": False,
        "num_shared_experts": 0,
        "num_expert_groups": None,
        "route_scale": 1.0,
        "load_balance_coeff": None,
    },
}
"""Experts as transformers has them."""


def with_experts(family: str, **changes: Any) -> dict[str, Any]:
    return {"moe_enabled": True, "norm_eps": 1e-6, "moe_args": {**EXPERTS[family], **changes}}


@pytest.mark.parametrize(
    ("family", "args", "reason"),
    [
        ("gpt_oss", {}, "take FlexAttention's masks alone"),
        ("a_users_own", {}, "no export for the model family 'a_users_own'; supported: deepseek_v3, dtf, llama3"),
        ("qwen3", {"qk_norm": False}, "qk_norm is False, expected True"),
    ],
)
def test_a_model_without_an_export_is_refused_by_name(family: str, args: dict[str, Any], reason: str) -> None:
    assert reason in export_refusal(family, args)


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("llama4", {"load_balance_coeff": 1e-3}, "moe_args.load_balance_coeff is 0.001, expected None"),
        ("llama4", {"score_before_experts": False}, "moe_args.score_before_experts is False, expected True"),
        ("llama4", {"num_shared_experts": 2}, "moe_args.num_shared_experts is 2, expected 1"),
        ("deepseek_v3", {"score_func": "softmax"}, "moe_args.score_func is 'softmax', expected 'sigmoid'"),
        ("deepseek_v3", {"score_before_experts": True}, "moe_args.score_before_experts is True, expected False"),
        ("deepseek_v3", {"gate_bias": True}, "moe_args.gate_bias is True, expected False"),
        ("deepseek_v3", {"load_balance_coeff": None}, "moe_args.load_balance_coeff is None"),
        ("deepseek_v3", {"num_shared_experts": 0}, "moe_args.num_shared_experts is 0"),
        ("deepseek_v3", {"_debug_force_load_balance": True}, "debug.moe_force_load_balance is on"),
        ("qwen3", {"score_func": "sigmoid"}, "moe_args.score_func is 'sigmoid', expected 'softmax'"),
        ("qwen3", {"load_balance_coeff": 1e-3}, "moe_args.load_balance_coeff is 0.001, expected None"),
        ("qwen3", {"num_shared_experts": 2}, "moe_args.num_shared_experts is 2, expected 0"),
        ("qwen3", {"num_expert_groups": 4}, "moe_args.num_expert_groups is 4, expected None"),
        ("qwen3", {"route_scale": 2.5}, "moe_args.route_scale is 2.5, expected 1.0"),
    ],
)
def test_experts_that_transformers_computes_otherwise_are_refused_by_name(
    family: str, changes: dict[str, Any], reason: str
) -> None:
    assert export_refusal(family, with_experts(family)) == ""
    assert reason in export_refusal(family, with_experts(family, **changes))


def test_the_norms_of_deepseeks_latents_have_one_eps() -> None:
    refusal = export_refusal("deepseek_v3", {**with_experts("deepseek_v3", score_func="softmax"), "norm_eps": 1e-5})

    assert "norm_eps is 1e-05, expected 1e-06: the norms of its latents" in refusal
    assert "moe_args.score_func is 'softmax'" in refusal, "every reason is told at once"


def test_a_dense_qwen3_may_have_any_experts_it_never_builds() -> None:
    assert export_refusal("qwen3", {"moe_enabled": False, "moe_args": {"score_func": "sigmoid"}}) == ""


@pytest.mark.parametrize("family", ["llama3", "qwen3", "qwen2", "deepseek_v3", "a_users_own"])
def test_rows_may_be_packed_where_documents_can_be_kept_apart(family: str) -> None:
    assert packing_refusals(family, context_parallel=1, pipeline_parallel=1) == {}


def test_every_reason_against_packed_rows_is_told_at_once() -> None:
    refusals = packing_refusals("llama4", context_parallel=2, pipeline_parallel=2)
    degrees = ["parallelism.context_parallel_degree", "parallelism.pipeline_parallel_degree"]
    assert list(refusals) == ["model.name", *degrees]
    assert "llama4" in refusals["model.name"]


def test_a_routed_model_may_be_sharded_and_replicated() -> None:
    degrees = {"parallelism.data_parallel_shard_degree": 4, "parallelism.data_parallel_replicate_degree": 2}
    assert routed_refusals(degrees) == {}


def test_every_reason_against_routing_is_told_at_once() -> None:
    degrees = {f"parallelism.{kind}_parallel_degree": 2 for kind in ("tensor", "context", "pipeline")}
    assert list(routed_refusals(degrees, "varlen")) == [*degrees, "model.attn_type"]


def test_the_families_with_groups_are_ours() -> None:
    assert set(PARAMETER_GROUPS) == {"mod", "dtf", "tdtf"} <= set(OWN_FAMILIES)
