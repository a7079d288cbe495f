import copy
import dataclasses

import pytest
from torchtitan.protocols.train_spec import get_train_spec

from titan.models.overrides import override_model_args
from titan.models.registry import train_spec


def llama3():
    return get_train_spec("llama3").model_args


def test_one_flavor_of_one_model_changes_and_the_registry_does_not():
    registry = llama3()
    before = copy.deepcopy(registry)
    args = override_model_args(
        registry, "llama3", "debugmodel", {"n_layers": 3, "rope_scaling_args": {"scaling_factor": 2.0}}
    )
    assert args["debugmodel"].n_layers == 3
    assert args["debugmodel"].rope_scaling_args.scaling_factor == 2.0
    assert args["debugmodel"].rope_scaling_args.low_freq_factor == 1.0
    assert args["8B"] == before["8B"]
    assert args["8B"] is not registry["8B"]
    assert registry == before
    assert get_train_spec("llama3").model_args == before


def test_experts_of_a_mixture_are_reached():
    args = override_model_args(get_train_spec("qwen3").model_args, "qwen3", "debugmodel_moe", {"moe_args.top_k": 2})
    assert args["debugmodel_moe"].moe_args.top_k == 2


@pytest.mark.parametrize(
    ("name", "flavor", "missing"), [("", "8B", "name"), (None, "8B", "name"), ("llama3", "", "flavor")]
)
def test_the_model_must_be_named(name, flavor, missing):
    with pytest.raises(ValueError, match=f"^model.{missing} is required for model override patch$"):
        override_model_args(llama3(), name, flavor, {})


def test_an_unknown_flavor_lists_the_known():
    with pytest.raises(KeyError) as caught:
        override_model_args(llama3(), "llama3", "x", {})
    assert caught.value.args[0].startswith("flavor 'x' not found in model_args for 'llama3'")
    assert "debugmodel" in caught.value.args[0]
    assert "405B" in caught.value.args[0]


@pytest.mark.parametrize("key", ["x", "rope_scaling_args.x", "dim.x"])
def test_an_unknown_field_is_named(key):
    with pytest.raises(AttributeError, match="has no field 'x'"):
        override_model_args(llama3(), "llama3", "debugmodel", {key: 1})


def test_the_error_for_a_field_names_the_arguments_class():
    with pytest.raises(AttributeError, match=r"^'TransformerModelArgs' has no field 'x'"):
        override_model_args(llama3(), "llama3", "debugmodel", {"x": 1})


@pytest.mark.parametrize(
    ("key", "value"), [("n_layers", "four"), ("n_layers", 4.5), ("n_layers", True), ("depth_init", 1), ("attn_type", 3)]
)
def test_a_value_of_another_type_is_refused(key, value):
    with pytest.raises(TypeError, match=rf"^model\.{key}: found "):
        override_model_args(llama3(), "llama3", "debugmodel", {key: value})


def test_a_whole_number_is_a_float_and_none_is_allowed_where_the_field_says_so():
    args = override_model_args(
        llama3(), "llama3", "8B", {"rope_theta": 10_000, "n_kv_heads": None, "ffn_dim_multiplier": 2}
    )["8B"]
    assert (args.rope_theta, args.n_kv_heads, args.ffn_dim_multiplier) == (10_000, None, 2)
    assert dataclasses.asdict(args)["dim"] == 4096


@pytest.mark.parametrize(
    ("family", "overrides", "message"),
    [
        ("dtf", {"n_layers": 3}, "n_layers=3, expected an even number"),
        ("mod", {"capacity": 1.5}, "capacity=1.5, expected above 0 and at most 1"),
        ("qwen2", {"n_heads": 3}, "dim=128 is no even multiple of n_heads=3"),
    ],
)
def test_values_that_dont_go_together_are_refused(family, overrides, message):
    with pytest.raises(ValueError, match=message):
        override_model_args(train_spec(family).model_args, family, "debugmodel", overrides)


def test_values_are_checked_when_all_are_set():
    """One after the other they don't fit: six heads don't go with a width of 128."""
    args = override_model_args(
        train_spec("qwen2").model_args, "qwen2", "debugmodel", {"n_heads": 6, "n_kv_heads": 3, "dim": 96}
    )
    assert args["debugmodel"].head_dim == 16
