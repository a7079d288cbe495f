import dataclasses
import math
from types import SimpleNamespace

import peft
import pytest
import torch
from tiny_exports import QWEN3_EXPERTS, SIZES, tiny_args
from torch import nn

from titan.models.lora import (
    LoRAConverter,
    LoRALinear,
    adapted_modules,
    add_adapters,
    init_adapters,
    is_adapter,
    merged_state,
    plain_name,
    register_converter,
    step_seed,
    trainable_parameters,
)
from titan.models.registry import train_spec
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.weights import module_names
from titanflow.common.errors import ConfigError
from titanflow.config.checks.lora import scaling
from titanflow.config.keys.training import Lora
from titanflow.config.settled.lora_presets import ROUTED, expanded

ALL = ["wq", "wk", "wv", "wo", "w1", "w2", "w3"]


def tiny_model(family="llama3", **changes):
    torch.manual_seed(0)
    model = train_spec(family).model_cls(tiny_args(family, **changes))
    with torch.no_grad():
        model.init_weights()
    return model


def adapted(settings, seed=1):
    model = tiny_model()
    add_adapters(model, settings)
    torch.manual_seed(seed)
    for _, module in adapted_modules(model):
        nn.init.normal_(module.lora_a)
        nn.init.normal_(module.lora_b)
    return model


@pytest.mark.parametrize("rslora", [False, True])
def test_a_layer_computes_what_pefts_does(rslora):
    settings = Lora(rank=3, alpha=7.0, rslora=rslora)
    torch.manual_seed(0)
    plain = nn.Linear(6, 5)
    layer = LoRALinear(plain, settings)
    theirs = peft.get_peft_model(
        nn.Sequential(plain),
        peft.LoraConfig(r=3, lora_alpha=7.0, use_rslora=rslora, target_modules=["0"], init_lora_weights=False),
    )
    state = theirs.base_model.model[0].state_dict()
    with torch.no_grad():
        layer.lora_a.copy_(state["lora_A.default.weight"])
        layer.lora_b.copy_(state["lora_B.default.weight"])
    x = torch.randn(2, 4, 6)
    torch.testing.assert_close(layer(x), theirs(x))
    torch.testing.assert_close(layer.merged(), theirs.merge_and_unload()[0].weight)


def test_the_scaling_is_that_of_the_papers():
    assert scaling(Lora(rank=16, alpha=8.0)) == 0.5
    assert scaling(Lora(rank=16, alpha=8.0, rslora=True)) == 2.0


def test_dropout_drops_inputs_of_the_adapter_alone_and_only_in_training():
    layer = LoRALinear(nn.Linear(400, 3), Lora(rank=2, dropout=0.25))
    nn.init.ones_(layer.lora_a)
    nn.init.ones_(layer.lora_b)
    x = torch.ones(1, 400)
    base = nn.functional.linear(x, layer.weight, layer.bias)
    torch.manual_seed(0)
    kept = ((layer(x) - base)[0, 0] / layer.scaling / 2 * 0.75).item()
    assert 0 < kept < 400
    assert kept == pytest.approx(300, abs=40)
    layer.eval()
    torch.testing.assert_close((layer(x) - base)[0, 0], torch.tensor(400.0 * 2 * layer.scaling))


def test_by_default_all_of_attention_and_feed_forward_is_adapted_and_the_head_is_not():
    model = tiny_model()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = add_adapters(model, Lora(rank=4))
    assert {name.rpartition(".")[2] for name in found.targets} == set(ALL)
    assert len(found.targets) == len(ALL) * SIZES["llama3"]["n_layers"]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.{part}" for name in found.targets for part in ("lora_a", "lora_b")}
    kept = {name: tuple(value.shape) for name, value in model.state_dict().items() if not is_adapter(name)}
    assert kept == shapes, "a base's checkpoint still fits"


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *((family, {}) for family in SIZES),
        ("deepseek_v3", {"q_lora_rank": 0}),
        ("qwen3", QWEN3_EXPERTS),
        ("qwen2", {"enable_weight_tying": True}),
    ],
)
def test_the_plan_knows_the_modules_that_the_model_has(family, changes):
    args = tiny_args(family, **changes)
    model = train_spec(family).model_cls(args)
    linears, others = module_names(family, dataclasses.asdict(args))
    modules = dict(model.named_modules())
    assert sorted(linears) == sorted(name for name, module in modules.items() if isinstance(module, nn.Linear))
    with_weights = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert sorted(others) == sorted(with_weights - set(linears))


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
def test_routed_saves_all_that_decides_and_nothing_else(family):
    args = tiny_args(family)
    model = train_spec(family).model_cls(args)
    linears, others = module_names(family, dataclasses.asdict(args))
    saved = expanded([ROUTED], family, [*linears, *others])
    assert not any(name[0].isdigit() or name.startswith("layers.") for name in saved)
    add_adapters(model, Lora(rank=2, modules_to_save=saved))
    dense = {name for name, _ in train_spec("qwen2").model_cls(tiny_args("qwen2", n_layers=4)).named_parameters()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    new = {name for name, _ in model.named_parameters()} - dense
    assert {name for name in trained if not is_adapter(name)} == {name for name in new if not is_adapter(name)}


def test_a_target_that_no_layer_is_called_is_refused_with_what_is_there():
    with pytest.raises(ConfigError) as caught:
        add_adapters(tiny_model(), Lora(rank=2, target_modules=["wq", "wkv", "wo"]))
    message = str(caught.value)
    assert "lora.target_modules: found 'wkv', which no linear layer is called" in message
    assert "matched by the others: attention.wq, attention.wo" in message
    assert "attention.wk" in message.partition("expected: ")[2]


@pytest.mark.parametrize("lora", [Lora(rank=-1), Lora(rank=2, alpha=0.0), Lora(rank=2, dropout=1.0)])
def test_impossible_numbers_are_refused(lora):
    with pytest.raises(ConfigError, match=r"lora\.(rank|alpha|dropout): found"):
        add_adapters(tiny_model(), lora)


@pytest.mark.parametrize("key", ["target_modules", "modules_to_save"])
def test_one_of_two_modules_that_share_a_weight_is_refused_by_name(key):
    settings = Lora(rank=2, **{key: ["output"]})
    add_adapters(tiny_model("qwen3", enable_weight_tying=False), settings)
    with pytest.raises(ConfigError, match="output: tok_embeddings and output are one weight"):
        add_adapters(tiny_model("qwen3", enable_weight_tying=True), settings)


def test_both_that_share_a_weight_are_trained_whole_and_never_adapted():
    model, both = tiny_model("qwen3", enable_weight_tying=True), ["tok_embeddings", "output"]
    add_adapters(model, Lora(rank=2, modules_to_save=both))
    assert model.output.weight is model.tok_embeddings.weight
    assert model.output.weight.requires_grad
    with pytest.raises(ConfigError, match=r"lora\.target_modules: output: tok_embeddings and output are one weight"):
        add_adapters(
            tiny_model("qwen3", enable_weight_tying=True),
            Lora(rank=2, target_modules=["output"], modules_to_save=["tok_embeddings"]),
        )


def test_a_new_adapter_changes_nothing_and_depends_on_seed_and_name_alone():
    tokens = torch.arange(20)[None]
    plain, model, fewer = tiny_model(), tiny_model(), tiny_model()
    converter = LoRAConverter(SimpleNamespace(lora=Lora(rank=4)), None)
    converter.convert(model)
    add_adapters(fewer, Lora(rank=4, target_modules=["w2"]))
    torch.manual_seed(7)
    with torch.no_grad():
        model.init_weights()
    torch.randn(5)
    init_adapters(fewer)
    mine, theirs = (dict(adapted_modules(one))["layers.1.feed_forward.w2"] for one in (model, fewer))
    assert torch.equal(mine.lora_a, theirs.lora_a)
    assert not torch.equal(mine.lora_a, dict(adapted_modules(model))["layers.2.feed_forward.w2"].lora_a)
    assert mine.lora_a.abs().max() <= 1 / math.sqrt(mine.in_features), "kaiming_uniform_ with a=√5"
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(model(tokens), plain(tokens))


def test_merged_the_model_computes_the_same():
    model = adapted(Lora(rank=2, alpha=0.2))
    plain = tiny_model()
    plain.load_state_dict(merged_state(model))
    tokens = torch.arange(30)[None]
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(tokens), tiny_model()(tokens), atol=1e-2)
    before = model.layers["0"].attention.wq.weight.clone()
    merged_state(model)
    assert torch.equal(model.layers["0"].attention.wq.weight, before), "merging leaves the model as it is"


def test_names_are_those_of_a_checkpoint():
    assert plain_name("layers.0._checkpoint_wrapped_module.attention.wq") == "layers.0.attention.wq"
    assert plain_name("_orig_mod.layers.0._orig_mod._checkpoint_wrapped_module.w") == "layers.0.w"
    assert plain_name("layers.0.attention.wq.lora_a") == "layers.0.attention.wq.lora_a"


def test_each_rank_and_step_drops_others():
    assert len({step_seed(0, step, rank) for step in range(10) for rank in range(4)}) == 40
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


def test_the_trainable_parameters_are_counted():
    register_converter()
    register_converter()
    args = tiny_args("llama3")
    spec = SimpleNamespace(model_cls=train_spec("llama3").model_cls, model_args={"x": args})
    config = SimpleNamespace(
        model=SimpleNamespace(flavor="x"),
        lora=Lora(rank=2, target_modules=["wq"], modules_to_save=["norm"]),
    )
    assert trainable_parameters(spec, config) == args.n_layers * 2 * (args.dim + args.dim) + args.dim
