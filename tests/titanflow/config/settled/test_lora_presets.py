"""``lora.modules_to_save: [routed, tokens]`` stands for modules of the family, and the plan counts them."""

import pytest

from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.config.settled.lora_presets import ROUTED, TOKENS, expanded
from titanflow.planning.forecast.flops import Counts
from titanflow.planning.forecast.forecast import Forecast, model_forecast
from titanflow.planning.forecast.table import forecast_cells

MODEL = "model: {{name: {family}, flavor: debugmodel, enable_weight_tying: {tied}}}"
EXPERIMENT = """
    modules:
      pretrain: {config: pretrain.yaml, model: tiny.yaml}
      sft: {config: sft.yaml}
    """


@pytest.fixture
def experiment(write):
    """The experiment with another family's model, its embeddings tied or not."""

    def experiment(family, tied="false"):
        own = f"model: {{name: {family}, flavor: debugmodel}}"
        model = own if family == "llama3" else MODEL.format(family=family, tied=tied)
        return write(models__tiny=model, experiments__exp=EXPERIMENT)

    return experiment


def counted(experiment) -> Counts:
    counts, _, _ = model_forecast(experiment.modules["sft"], "cpu")
    assert counts is not None
    return counts


def test_what_stands_beside_a_preset_stays_and_none_is_named_twice():
    names = ["layers.0.router", "layers.2.router", "layers.2.predictor.down", "layers.2.attention.wq", "norm"]
    assert expanded(["norm", ROUTED, TOKENS, "router"], "mod", names) == [
        *("norm", "router", "predictor.down", "tok_embeddings", "output"),
    ]
    assert expanded(["norm"], "mod", names) == ["norm"]
    assert expanded([ROUTED], "llama3", ["layers.0.router"]) == [ROUTED]


ROUTERS = {
    ("mod", "previous"): {"router", "causal_router"},
    ("mod", "own"): {"router", "predictor"},
    ("dtf", "previous"): {"prior", "prior_norm", "router", "causal_router"},
    ("dtf", "own"): {"prior", "prior_norm", "router"},
    ("tdtf", ""): {"transition", "transition_norm", "router", "student", "student_norm"},
}


@pytest.mark.parametrize(("family", "causal_router"), ROUTERS)
def test_routed_stands_for_the_modules_of_the_family_and_the_plan_counts_them(experiment, load, family, causal_router):
    path = experiment(family)
    router = [f"pretrain.model.causal_router={causal_router}"] if causal_router else []
    plain, routed = (
        load(path, "sft.lora.rank=4", f"sft.lora.modules_to_save={saved}", *router) for saved in ("[]", f"[{ROUTED}]")
    )
    modules = routed.modules["sft"].config["lora"]["modules_to_save"]
    groups = {name for names in PARAMETER_GROUPS[family].values() for name in names}
    found = {part for name in modules for part in name.split(".") if part in groups}
    assert found == ROUTERS[family, causal_router]
    assert counted(plain).whole == 0
    assert counted(routed).whole == counted(routed).trained - counted(plain).trained > 0


def test_tokens_are_embeddings_and_head_and_nothing_is_warned_of_any_more(experiment, load):
    path = experiment("llama3")
    assert any("[tokens] trains them too" in line for line in load(path, "sft.lora.rank=4").warnings)
    loaded = load(path, "sft.lora.rank=4", f"sft.lora.modules_to_save=[{TOKENS}]")
    assert loaded.modules["sft"].config["lora"]["modules_to_save"] == ["tok_embeddings", "output"]
    assert loaded.warnings == []
    args = loaded.modules["sft"].model_args
    assert counted(loaded).whole == 2 * args["vocab_size"] * args["dim"]


def test_tokens_of_tied_embeddings_are_one_weight_and_one_of_the_two_is_refused(experiment, load, mistakes):
    path = experiment("qwen2", tied="true")
    loaded = load(path, "sft.lora.rank=4", f"sft.lora.modules_to_save=[{TOKENS}]")
    args = loaded.modules["sft"].model_args
    assert loaded.warnings == []
    assert counted(loaded).whole == args["vocab_size"] * args["dim"]
    message = mistakes(path, "sft.lora.rank=4", "sft.lora.modules_to_save=[output]")
    assert "sft.lora.modules_to_save: output: tok_embeddings and output are one weight in this model" in message
    assert "name both, or tokens" in message


def test_the_plan_says_how_many_parameters_belong_to_whole_modules():
    known = Forecast("a", parameters=500_000_000, trained_parameters=9_200_000, whole_parameters=4_800_000)
    assert forecast_cells(known)["model"] == "500 M parameters, 9.2 M trained (4.8 M in whole modules)"


def test_routed_of_a_model_without_routers_is_refused(experiment, mistakes):
    message = mistakes(experiment("llama3"), "sft.lora.rank=4", f"sft.lora.modules_to_save=[{ROUTED}]")
    assert f"--set sft.lora.modules_to_save=[{ROUTED}]: sft.lora.modules_to_save: found 'routed'" in message
    assert "llama3 has no routed layers" in message
    assert "'routed' is for dtf, mod, tdtf" in message


def test_a_rate_of_a_group_that_lora_leaves_is_said_to_have_no_effect(experiment, load):
    lora = ("sft.lora.rank=4", "sft.optimizer.group_lr.router=1e-3", "sft.optimizer.group_lr.prior=1e-3")
    path = experiment("dtf")
    idle = [line for line in load(path, *lora).warnings if "no effect" in line]
    assert [line.partition(" (")[0] for line in idle] == [
        f"sft.optimizer.group_lr.{one}" for one in ("router", "prior")
    ]
    assert all(line.endswith("lora.modules_to_save: [routed] trains them") for line in idle)
    assert not any("group_lr" in line for line in load(path, *lora, f"sft.lora.modules_to_save=[{ROUTED}]").warnings)
    partly = load(path, *lora, "sft.lora.target_modules=[prior.up, wq]").warnings
    assert [one in " ".join(partly) for one in ("group_lr.router", "group_lr.prior")] == [True, False]


def test_a_model_that_cannot_be_built_is_named_alone(experiment, mistakes):
    """What its modules would be called is nobody's question then."""
    message = mistakes(
        experiment("mod"), "sft.lora.rank=4", "sft.lora.modules_to_save=[routed]", "pretrain.model.n_heads=0"
    )
    assert "pretrain.model.n_heads: found 0" in message
    assert "lora" not in message
