import dataclasses

import pytest

from titanflow.architectures.torchtitan import load_snapshot
from titanflow.config.checks.model import check_model

QWEN2 = """
    modules:
      pretrain:
        config: pretrain.yaml
        overrides: {model: {name: qwen2, flavor: debugmodel}}
    """
FLAVORS = [(name, flavor) for name, found in load_snapshot()["models"].items() for flavor in found["flavors"]]


@pytest.fixture
def qwen2(write):
    return write(experiments__exp=QWEN2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["n_heads=3"], "pretrain.model.n_heads: dim is 128 and n_heads 3: a head is 42.6667 wide"),
        (["n_kv_heads=1", "dim=132", "n_heads=12"], "pretrain.model.n_heads: dim is 132 and n_heads 12: a head is 11 "),
        (["dim=130"], "pretrain.model.dim: dim is 130 and n_heads 4"),
        (["n_kv_heads=3"], "pretrain.model.n_kv_heads: n_heads is 4 and n_kv_heads 3"),
        (["n_heads=1"], "pretrain.model.n_heads: n_heads is 1 and n_kv_heads 2"),
        (["n_layers=0"], "pretrain.model.n_layers: found 0\n    expected: 1 or more"),
        (["n_heads=0"], "pretrain.model.n_heads: found 0"),
        (["vocab_size=-1"], "pretrain.model.vocab_size: found -1"),
        (["dropout=1.0"], "pretrain.model.dropout: found 1.0"),
        (["dropout=-0.1"], "pretrain.model.dropout: found -0.1"),
        (["dropout=0.1", "attn_type=flex"], "pretrain.model.dropout: dropout is 0.1 and attn_type 'flex'"),
        (["dropout=0.1", "attn_type=varlen"], "expected: dropout 0, or attn_type sdpa"),
    ],
)
def test_arguments_of_which_no_model_can_be_built_are_refused(qwen2, mistakes, settings, expected):
    message = mistakes(qwen2, *(f"pretrain.model.{setting}" for setting in settings))
    assert expected in message
    assert "--set pretrain.model." in message, "the origin is what was written, not the flavor"


@pytest.mark.parametrize("settings", [["dropout=0.5"], ["attn_type=flex"], ["n_kv_heads=4"], ["dim=96", "n_heads=6"]])
def test_what_fits_is_let_through(qwen2, load, settings):
    load(qwen2, *(f"pretrain.model.{setting}" for setting in settings))


@pytest.mark.parametrize("dropping", ["pretrain.model.dropout=0.1", "sft.lora.dropout=0.1"])
def test_what_is_recomputed_must_drop_the_same(write, load, mistakes, dropping):
    path = write(
        models__tiny="model: {name: qwen2, flavor: debugmodel}",
        experiments__exp="""
            modules:
              pretrain: {config: pretrain.yaml, model: tiny.yaml}
              sft: {config: sft.yaml, overrides: {lora: {rank: 2}}}
            """,
    )
    module = dropping.partition(".")[0]
    forgets = f"{module}.activation_checkpoint.preserve_rng_state=false"
    message = mistakes(path, dropping, forgets)
    assert f"{module}.activation_checkpoint.preserve_rng_state: found false, with dropout" in message
    load(path, dropping, forgets, f"{module}.activation_checkpoint.mode=none")
    load(path, dropping)
    load(path, forgets)


def test_dropout_that_the_base_has_goes_with_sdpa_alone_in_an_sft_too(write, load, mistakes):
    path = write(
        experiments__exp="""
            modules:
              pretrain:
                config: pretrain.yaml
                overrides: {model: {name: qwen2, flavor: debugmodel, dropout: 0.2}}
              sft: {config: sft.yaml}
            """
    )
    assert load(path, "sft.model.dropout=0.0").modules["sft"].model_args["dropout"] == 0.0
    assert "sft.model.attn_type: dropout is 0.2 and attn_type 'varlen'" in mistakes(path, "sft.model.attn_type=varlen")
    load(path, "sft.model.attn_type=varlen", "sft.model.dropout=0.0")


def test_a_llama_is_held_against_its_heads_too(write, mistakes):
    path = write()
    assert "pretrain.model.n_heads: dim is 64 and n_heads 3" in mistakes(path, "pretrain.model.n_heads=3")


@pytest.mark.parametrize(("name", "flavor"), FLAVORS)
def test_every_flavor_there_is_is_let_through(qwen2, load, name, flavor):
    module = load(qwen2).modules["pretrain"]
    args = load_snapshot()["models"][name]["flavors"][flavor]
    model = {**module.config, "model": {**module.config["model"], "name": name, "flavor": flavor}}
    assert check_model(dataclasses.replace(module, config=model, model_args=args, model_overrides={})) == []


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("mod", ["capacity=0.0"], "pretrain.model.capacity: found 0.0"),
        ("tdtf", ["capacity=1.5"], "pretrain.model.capacity: found 1.5"),
        ("mod", ["route_every=5"], "pretrain.model.route_every: every 5 layers one is routed, and there are 4"),
        ("mod", ["route_every=0"], "pretrain.model.route_every: found 0"),
        ("dtf", ["n_layers=3"], "pretrain.model.n_layers: found 3: dtf's layers come in pairs"),
        ("tdtf", ["n_layers=1"], "every 2 layers one is routed, and there are 1\n    expected: 2 layers or more"),
        ("dtf", ["moving_average_window=0"], "pretrain.model.moving_average_window: found 0"),
        ("mod", ["z_loss_weight=-1e-4"], "pretrain.model.z_loss_weight: found -0.0001"),
        ("mod", ["aux_loss_weight=.inf"], "pretrain.model.aux_loss_weight: found inf"),
        ("dtf", ["causal_loss_weight=.nan"], "pretrain.model.causal_loss_weight: found nan"),
        ("dtf", ["prior_loss_weight=-0.05"], "pretrain.model.prior_loss_weight: found -0.05"),
        ("tdtf", ["tpn_loss_weight=-1"], "pretrain.model.tpn_loss_weight: found -1"),
        ("tdtf", ["beta_start=0.0"], "pretrain.model.beta_start: found 0.0"),
        ("tdtf", ["beta_end=-1"], "pretrain.model.beta_end: found -1"),
        ("tdtf", ["beta_warmup_steps=-1"], "pretrain.model.beta_warmup_steps: found -1"),
        ("dtf", ["prior_factor=0.0"], "pretrain.model.prior_factor: found 0.0"),
    ],
)
def test_a_routed_models_arguments_are_held_against_each_other(write, mistakes, family, settings, expected):
    path = write(experiments__exp=QWEN2.replace("qwen2", family))
    assert expected in mistakes(path, *(f"pretrain.model.{setting}" for setting in settings))


@pytest.mark.parametrize(("steps", "warned"), [(1000, True), (1001, False)])
def test_a_schedule_that_a_stage_ends_before_is_told(write, load, steps, warned):
    path = write(experiments__exp=QWEN2.replace("qwen2", "tdtf"))
    warnings = load(path, f"pretrain.training.steps={steps}").warnings
    assert any("beta_warmup_steps is 1000" in line for line in warnings) is warned


@pytest.mark.parametrize(
    ("settings", "warned"),
    [(["training.steps=40"], False), (["training.steps=39"], True), (["training.steps=39", "total_steps=100"], False)],
)
def test_a_warm_up_that_outlasts_the_training_is_told(write, load, settings, warned):
    path = write(experiments__exp=QWEN2)
    keys = [setting.replace("total_steps", "lr_scheduler.total_steps") for setting in settings]
    warnings = load(path, *(f"pretrain.{key}" for key in [*keys, "lr_scheduler.warmup_steps=40"])).warnings
    told = (
        "pretrain.lr_scheduler.warmup_steps (--set pretrain.lr_scheduler.warmup_steps=40) is 40 and training.steps 39"
    )
    assert any(told in line for line in warnings) is warned


@pytest.mark.parametrize(("ratio", "warned"), [(0.5, True), (0.3, False), (0, False)])
def test_a_decay_that_doesnt_fit_behind_the_warm_up_is_warned_of(write, load, ratio, warned) -> None:
    settings = ("training.steps=100", "lr_scheduler.warmup_steps=70", f"lr_scheduler.decay_ratio={ratio}")
    warnings = load(write(), *(f"pretrain.{one}" for one in settings)).warnings
    said = (
        "pretrain.lr_scheduler.decay_ratio is 0.5, lr_scheduler.warmup_steps 70 and training.steps 100: the decay takes"
    )
    assert any(said in line for line in warnings) is warned
