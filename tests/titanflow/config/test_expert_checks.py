"""What torchtitan's router refuses of a mixture of experts in its first step."""

import pytest

FAMILY = (
    "pretrain.model.name=deepseek_v3",
    "pretrain.model.flavor=debugmodel",
    "pretrain.model.moe_args.num_experts=8",
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["top_k=9"], "model.moe_args.top_k: found 9, and the model has 8 experts"),
        (["top_k=0"], "expected: 1 to 8"),
        (["num_expert_groups=3", "num_limited_groups=1"], "num_expert_groups: found 3, and the model has 8 experts"),
        (["num_expert_groups=8", "num_limited_groups=1"], "a divisor of 8, two in each group"),
        (["num_expert_groups=4"], "4 groups of experts, and num_limited_groups is None"),
        (["num_expert_groups=4", "num_limited_groups=5"], "num_limited_groups is 5"),
    ],
)
def test_experts_that_no_router_chooses(write, mistakes, settings: list[str], expected: str) -> None:
    message = mistakes(write(), *FAMILY, *(f"pretrain.model.moe_args.{one}" for one in settings))
    assert expected in message
    assert "--set pretrain.model.moe_args." in message


@pytest.mark.parametrize("settings", [["top_k=8"], ["num_expert_groups=4", "num_limited_groups=2"]])
def test_experts_that_a_router_chooses(write, load, settings: list[str]) -> None:
    load(write(), *FAMILY, *(f"pretrain.model.moe_args.{one}" for one in settings))
