"""Several evaluations and publications in one experiment: which scores belong to which model, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parse_settings
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan

OWN = """\
extends: [tiny.yaml]
modules:
  evaluate: {overrides: {models: [sft]}}
  eval_b: {stage: evaluate, config: evaluate.yaml, overrides: {models: [pretrain], tasks: [tiny_colour], chat: false,
    include_path: ../evals, wandb: false}}
  publish_b: {stage: publish, config: publish.yaml, overrides: {model: pretrain}}
"""
TWICE = "eval_b.models=[pretrain, sft]"
Load = Callable[..., Experiment]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    configs = write_tiny_experiment(tmp_path)
    (configs / "experiments" / "own.yaml").write_text(OWN, encoding="utf-8")
    return configs


@pytest.fixture
def load(configs: Path) -> Load:
    return lambda *settings: load_experiment("own", configs, parse_settings(settings))


def evaluations(experiment: Experiment) -> dict[str, str]:
    return {one.name: one.config["evaluation"] for one in experiment.of_kind("publish")}


def parents(plan: Plan, name: str) -> list[str]:
    stage = plan.stage(name)
    assert stage is not None
    assert stage.inputs is not None
    return [key.removeprefix("parent.") for key in stage.inputs.values if key.startswith("parent.")]


def test_a_publication_reports_the_evaluation_that_scores_its_model(load: Load) -> None:
    assert evaluations(load()) == {"publish": "evaluate", "publish_b": "eval_b"}
    assert evaluations(load(TWICE, "publish.evaluation=eval_b")) == {"publish": "eval_b", "publish_b": "eval_b"}
    # An experiment's only evaluation is that of everything that is published.
    assert evaluations(load("modules.eval_b=null", "modules.publish_b=null")) == {"publish": "evaluate"}
    without = load("modules.eval_b=null", "modules.evaluate=null")
    assert evaluations(without) == {"publish": None, "publish_b": None}


def test_the_plan_has_each_in_its_order_with_what_it_is_made_from(configs: Path) -> None:
    plan = make_plan("own", configs)
    assert [stage.stage for stage in plan.stages] == [
        *("prepare", "pretrain", "sft", "evaluate", "eval_b", "publish", "publish_b"),
    ]
    assert parents(plan, "evaluate") == ["pretrain", "sft"]
    assert parents(plan, "eval_b") == ["pretrain"]
    assert parents(plan, "publish") == ["pretrain", "sft", "evaluate"]
    assert parents(plan, "publish_b") == ["pretrain", "eval_b"]
    part = make_plan("own", configs, overrides=["only=[publish_b]"])
    assert [stage.stage for stage in part.stages] == ["prepare", "pretrain", "eval_b", "publish_b"]
    # Settings reach the module that they name, and no other one.
    set_alone = make_plan("own", configs, overrides=["eval_b.limit=3", "publish_b.dry_run=true"])
    limits = [stage.run.config["limit"] for stage in set_alone.of_kind("evaluate")]
    assert limits == [None, 3]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([TWICE], "publish.evaluation: evaluate and eval_b score sft\n    expected: one of evaluate, eval_b"),
        (["eval_b.models=[sft]"], "publish_b.evaluation: none of evaluate and eval_b scores pretrain"),
        (["publish.evaluation=eval_c"], "publish.evaluation: found 'eval_c', which is no evaluate module"),
        (["modules.eval_b=null", "publish_b.evaluation=eval_b"], "publish_b.evaluation: found 'eval_b', which is no"),
        (["publish.evaluation=eval_b"], "publish.model: found 'sft', and eval_b scores pretrain"),
        (["publish.folder=/tmp/a", "publish_b.folder=/tmp/a/"], "publish_b.folder: publish publishes to /tmp/a, too"),
        (["publish.folder=/tmp/a", "publish_b.folder=/tmp/a/b"], "publish_b.folder: publish publishes to /tmp/a, too"),
        (
            ["publish.target=hub", "publish.repo_id=a/b", "publish_b.target=hub", "publish_b.repo_id=A/b"],
            "publish_b.repo_id: publish publishes to a/b, too",
        ),
        (["publish_b.gate.thresholds={kind/acc: 0.5}"], "publish_b.gate.thresholds.kind/acc: no task 'kind' is"),
        (["publish_b.gguf=[f16, f16]"], "publish_b.gguf: found f16, f16"),
        (
            ["eval_b.limit=3"],
            "eval_b.limit: only a part of each task is evaluated",
        ),
        (["eval_b.tasks=[nothing]"], "eval_b.tasks: "),
        (["publish_b.tag=a b", "publish_b.target=hub", "publish_b.repo_id=a/b"], "publish_b.tag: 'a b' can't be"),
    ],
)
def test_what_contradicts_is_refused_in_the_plan(configs: Path, settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_plan("own", configs, overrides=settings)
    assert told in str(refused.value)


def test_a_training_is_scored_on_the_way_as_the_evaluation_that_scores_it_says(load: Load) -> None:
    every = ["pretrain.during.every=4", "sft.during.every=4"]
    found = load(*every).modules
    assert [found[name].config["during"]["evaluation"] for name in ("pretrain", "sft")] == ["eval_b", "evaluate"]
    named = load(*every, "pretrain.during.evaluation=evaluate").modules["pretrain"]
    assert named.config["during"]["evaluation"] == "evaluate"
    with pytest.raises(ConfigError, match=r"sft\.during\.evaluation: evaluate and eval_b score sft"):
        load(*every, TWICE, "publish.evaluation=evaluate")
    # A part of a chain is scored on the way, too, though the evaluation doesn't run.
    part = load(*every, "only=[pretrain]")
    assert list(part.modules) == ["pretrain"]
    assert list(part.evaluations) == ["evaluate", "eval_b"]


def test_a_mean_of_two_evaluations_is_one_mean(load: Load) -> None:
    mean = "{mean: [pretrain, sft]}"
    both = [f"eval_b.models={{pretrain: pretrain, avg: {mean}}}", f"evaluate.models={{sft: sft, avg: {mean}}}"]
    assert load(*both).modules["eval_b"].config["models"] == ["pretrain", "avg"]
    other = both[1].replace("]}", "], weights: [0.25, 0.75]}")
    with pytest.raises(ConfigError, match=r"eval_b\.means\.avg: evaluate has another mean of this name"):
        load(both[0], other)


def test_the_best_of_a_training_is_chosen_by_one_score(configs: Path, load: Load) -> None:
    third = "  third: {stage: publish, config: publish.yaml, overrides: {model: pretrain}}\n"
    (configs / "experiments" / "own.yaml").write_text(OWN + third, encoding="utf-8")
    every, by = ["pretrain.during.every=4"], "dev/tiny_colour/acc"
    found = load(*every, f"publish_b.checkpoint.best={by}").modules
    assert [found[name].config["model"] for name in ("publish_b", "third")] == ["pretrain.best", "pretrain"]
    assert found["eval_b"].config["models"] == ["pretrain", "pretrain.best"]
    assert load(*every, f"publish_b.checkpoint.best={by}", f"third.checkpoint.best={by}").modules["eval_b"].config[
        "models"
    ] == ["pretrain", "pretrain.best"]
    with pytest.raises(ConfigError, match=r"third\.checkpoint\.best: found 'dev/x/acc', and another publication"):
        load(*every, f"publish_b.checkpoint.best={by}", "third.checkpoint.best=dev/x/acc")


def test_a_misspelt_model_is_blamed_and_not_the_evaluation(load: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load("publish.model=stf")
    (problem,) = refused.value.problems
    assert problem.key == "publish.model"
    assert problem.message == "found 'stf', which no module of this experiment trains"
    assert problem.hint == "did you mean sft?"
    with pytest.raises(ConfigError, match="evaluation: evaluate and eval_b score pretrain"):
        load("publish.model=pretrain", "evaluate.models=[sft, pretrain]")
