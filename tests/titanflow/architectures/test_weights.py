"""Against torchtitan's own models, built on the meta device: every weight by name and shape."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torchtitan.protocols.train_spec import get_train_spec

from titan.models.lora import add_adapters
from titan.patches import apply_patches
from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.architectures.weights import linear_layers, model_weights
from titanflow.config.keys.training import Lora
from titanflow.planning.forecast.device import PEAK_FLOPS, DeviceSpec
from titanflow.planning.forecast.flops import count

FLAVORS = [(family, flavor) for family, known in load_snapshot()["models"].items() for flavor in known["flavors"]]
SEQ_LEN = 1024


def build(family: str, flavor: str, **overrides: object) -> tuple[torch.nn.Module, object]:
    apply_patches(["cpu_device", "deepseek_args"])
    for module in OWN_FAMILIES.values():
        __import__(module)
    spec = get_train_spec(family)
    args = copy.deepcopy(spec.model_args[flavor])
    for name, value in overrides.items():
        setattr(args, name, value)
    # RoPE's tables are no weights, and long.
    args.max_seq_len = 16
    with torch.device("meta"):
        return spec.model_cls(args), args


def planned(family: str, flavor: str, **overrides: object) -> dict:
    return {**copy.deepcopy(load_snapshot()["models"][family]["flavors"][flavor]), **overrides}


def check(family: str, flavor: str, **overrides: object) -> None:
    model, args = build(family, flavor, **overrides)
    known = planned(family, flavor, **overrides)
    shapes = model_weights(family, known)
    assert shapes is not None
    assert shapes == {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    found = count(family, known, shapes, SEQ_LEN, Lora())
    total, flops = args.get_nparams_and_flops(model, SEQ_LEN)
    if family == "qwen3" and known["enable_weight_tying"]:
        # torchtitan takes the tied weight, counted once by torch already, off a second time.
        tied = shapes["tok_embeddings.weight"][0] * shapes["tok_embeddings.weight"][1]
        total, flops = total + tied, flops + 6 * tied
    assert (found.parameters, found.trained, found.flops_per_token) == (total, total, flops)


@pytest.mark.parametrize(("family", "flavor"), FLAVORS)
def test_weights_parameters_and_operations_are_torchtitans(family: str, flavor: str) -> None:
    check(family, flavor)


@pytest.mark.parametrize(
    ("family", "flavor", "overrides"),
    [
        ("llama3", "debugmodel", {"ffn_dim_multiplier": 1.3, "multiple_of": 24, "n_kv_heads": 4}),
        ("qwen2", "debugmodel", {"enable_weight_tying": False}),
        ("qwen3", "debugmodel", {"qk_norm": False, "enable_weight_tying": False}),
        ("mod", "debugmodel", {"route_every": 3, "capacity": 1.0}),
        ("mod", "debugmodel", {"causal_router": "own"}),
        ("dtf", "debugmodel", {"causal_router": "own"}),
        ("dtf", "debugmodel", {"prior_factor": 0.3, "enable_weight_tying": False}),
        ("tdtf", "debugmodel", {"prior_factor": 0.001, "capacity": 1.0, "n_layers": 5}),
        ("llama4", "debugmodel", {"auto_scale_hidden_dim": False, "interleave_moe_layer_step": 3}),
        ("deepseek_v3", "debugmodel", {"q_lora_rank": 48, "n_dense_layers": 2}),
    ],
)
def test_overridden_arguments(family: str, flavor: str, overrides: dict) -> None:
    check(family, flavor, **overrides)


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("llama3", Lora(rank=4)),
        ("llama3", Lora(rank=8, target_modules=["wq", "output"], modules_to_save=["tok_embeddings", "norm"])),
        ("qwen2", Lora(rank=4, modules_to_save=["attention_norm"])),
        ("deepseek_v3", Lora(rank=4, target_modules=["wkv_b", "wo", "shared_experts.w1", "w2"])),
        ("dtf", Lora(rank=2, target_modules=["layers.1.*.w2", "prior.up"], modules_to_save=["router"])),
        ("mod", Lora(rank=2, modules_to_save=["router", "causal_router"])),
    ],
)
def test_what_adapters_train(family: str, lora: Lora) -> None:
    model, _ = build(family, "debugmodel")
    add_adapters(model, lora)
    known = planned(family, "debugmodel")
    shapes = model_weights(family, known)
    assert shapes is not None
    found = count(family, known, shapes, SEQ_LEN, lora)
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    assert found.trained == sum(trained.values())
    assert found.whole == sum(size for name, size in trained.items() if ".lora_" not in name)


def test_an_unknown_family_has_no_formula() -> None:
    assert model_weights("mine", {"dim": 8}) is None
    assert model_weights("llama3", {}) is None


@pytest.mark.parametrize(("words", "peak"), PEAK_FLOPS)
def test_peaks_are_torchtitans(words: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchtitan.tools import utils

    # It would ask lspci for an H100 first.
    monkeypatch.setattr(utils.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    upstream = getattr(utils.get_peak_flops, "__wrapped__", utils.get_peak_flops)
    assert upstream(f"NVIDIA {words}") == peak == DeviceSpec("cuda", f"NVIDIA {words}").peak_flops


def test_linear_layers() -> None:
    shapes = model_weights("qwen2", planned("qwen2", "debugmodel", n_layers=1))
    assert shapes is not None
    names = ["attention.wq", "attention.wk", "attention.wv", "attention.wo"]
    names += ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
    assert linear_layers(shapes) == [f"layers.0.{name}" for name in names]
