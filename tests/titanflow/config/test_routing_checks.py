"""What the plan says of models with routed layers."""

from pathlib import Path

import pytest
import yaml

from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.config.checks.module import check_module

MODELS = Path(__file__).parents[3] / "configs" / "models"


def routed(family: str) -> str:
    return f"model: {{name: {family}, flavor: debugmodel}}"


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
def test_each_groups_rate_is_taken(write, load, family: str) -> None:
    path = write(models__tiny=routed(family))
    settings = [f"pretrain.optimizer.group_lr.{group}=0.01" for group in PARAMETER_GROUPS[family]]
    module = load(path, *settings).modules["pretrain"]
    assert module.config["optimizer"]["group_lr"] == dict.fromkeys(PARAMETER_GROUPS[family], 0.01)
    assert check_module(module) == []


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("mod", "expected: router"),
        ("dtf", "expected: prior or router"),
        ("tdtf", "expected: prior or router"),
        ("llama3", "expected: nothing: this model family has one group"),
    ],
)
def test_an_unknown_group_is_refused(write, mistakes, family: str, expected: str) -> None:
    message = mistakes(write(models__tiny=routed(family)), "pretrain.optimizer.group_lr.gate=0.01")
    assert "pretrain.optimizer.group_lr.gate: unknown group" in message
    assert expected in message


def test_a_rate_is_a_number(write, mistakes) -> None:
    message = mistakes(write(models__tiny=routed("mod")), "pretrain.optimizer.group_lr.router=fast")
    assert "pretrain.optimizer.group_lr.router" in message


def test_rates_of_groups_and_steps_in_the_backward_pass_exclude_each_other(write, mistakes) -> None:
    path = write(models__tiny=routed("mod"))
    message = mistakes(
        path, "pretrain.optimizer.group_lr.router=0.01", "pretrain.optimizer.early_step_in_backward=true"
    )
    assert "pretrain.optimizer.early_step_in_backward: found true, with optimizer.group_lr" in message


@pytest.mark.parametrize(
    ("family", "packing", "is_told"), [("mod", "null", True), ("mod", "best_fit", False), ("llama3", "null", False)]
)
def test_padding_that_competes_with_tokens_is_told(write, load, family: str, packing: str, is_told: bool) -> None:
    experiment = """
        modules:
          pretrain: {config: pretrain.yaml, model: tiny.yaml}
          sft: {config: sft.yaml}
        """
    path = write(models__tiny=routed(family), experiments__exp=experiment)
    warnings = load(path, f"sft.data.packing={packing}").warnings
    assert any("sft.data.packing is null: padding competes" in line for line in warnings) is is_told


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
@pytest.mark.parametrize("kind", ["tensor", "context", "pipeline"])
def test_what_cuts_rows_layers_or_widths_is_refused(write, load, family: str, kind: str) -> None:
    module = load(write(models__tiny=routed(family))).modules["pretrain"]
    module.config["parallelism"][f"{kind}_parallel_degree"] = 2
    assert any(f"parallelism.{kind}_parallel_degree" in str(problem) for problem in check_module(module))


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
def test_a_routed_layers_attention_is_sdpa(write, mistakes, family: str) -> None:
    path = write(models__tiny=f"model: {{name: {family}, flavor: debugmodel, attn_type: flex}}")
    assert "model.attn_type: found 'flex', and a routed layer's attention is sdpa" in mistakes(path)


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
@pytest.mark.parametrize("size", ["10m", "50m", "0.5B"])
def test_the_model_files_name_what_there_is(family: str, size: str) -> None:
    model = yaml.safe_load((MODELS / f"{family}_{size}.yaml").read_text())["model"]
    dense = yaml.safe_load((MODELS / f"qwen2_{size}.yaml").read_text())["model"]
    assert model["name"] == family
    assert model["flavor"] == dense["flavor"]
    args = load_snapshot()["models"][family]["flavors"][model["flavor"]]
    assert args["capacity"] == {"mod": 0.125, "dtf": 0.5, "tdtf": 0.5}[family]
    shape = load_snapshot()["models"]["qwen2"]["flavors"][dense["flavor"]]
    assert {key: args[key] for key in shape} == shape


@pytest.mark.parametrize("family", ["mod", "dtf"])
def test_what_chooses_tokens_in_use_is_one_of_two(write, load, mistakes, family: str) -> None:
    path = write(models__tiny=routed(family))
    assert load(path).modules["pretrain"].model_args["causal_router"] == "previous"
    assert load(path, "pretrain.model.causal_router=own").modules["pretrain"].model_args["causal_router"] == "own"
    message = mistakes(path, "pretrain.model.causal_router=next")
    assert "pretrain.model.causal_router: found 'next'" in message
    assert "expected: one of previous, own" in message


def test_a_student_has_no_other_router(write, mistakes) -> None:
    message = mistakes(write(models__tiny=routed("tdtf")), "pretrain.model.causal_router=own")
    assert "pretrain.model.causal_router" in message
    assert "families that have it: dtf, mod" in message
