"""The best checkpoint of a training in the plan: which scores may tell it, and what becomes of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from best_experiment import BY, write_best_experiment
from finished_stage import evaluate_result, write_checkpoint
from finished_without_training import finish, finish_stage
from tiny_plans import edit, refusal

from titanflow.common.errors import ConfigError
from titanflow.planning.begin import begin_stage, record_start
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import check_stale
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import EVALUATIONS_FILE, append_record
from titanflow.runs.results import write_result
from titanflow.runs.scores.best import best_checkpoint

NAME = "pretrain.best"


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_best_experiment(tmp_path)


def score(plan: Plan, **values: float | None) -> None:
    """Notes scores of steps, as ``step_4=0.5``; None for one that couldn't be scored."""
    for name, value in values.items():
        record: dict[str, Any] = {"step": int(name.removeprefix("step_")), "tasks": ["tiny_bytes"], "limit": None}
        if value is None:
            record |= {"failed": "it was killed by SIGKILL"}
        else:
            better = {"tiny_bytes": {"bits_per_byte": True}}
            record |= {"part": "dev", "scores": {"tiny_bytes": {"bits_per_byte": value}}, "higher_is_better": better}
        append_record(plan.folder / "pretrain" / EVALUATIONS_FILE, record)


def evaluated(configs: Path) -> Plan:
    """A run that has scored its best checkpoint, step 4, and published it."""
    plan = finish(configs, upto="pretrain")
    score(plan, step_4=0.5, step_8=0.4)
    write_checkpoint(plan.folder / "pretrain" / "during" / "step-4")
    manifest, stage = Manifest.open(plan.folder), plan.stage("evaluate")
    assert stage is not None
    begin_stage(stage)
    record_start(stage, manifest)
    best = best_checkpoint(plan.stages[1].run, BY)
    assert best is not None
    result = evaluate_result(best={NAME: best})
    write_result(stage.run.folder, result)
    (stage.run.folder / "samples_x_y.jsonl").touch()
    manifest.record_finish(stage.run, result)
    finish_stage(plan.stages[-1], manifest)
    return plan


def states(plan: Plan) -> dict[str, str]:
    return {stage.stage: stage.state for stage in plan.stages if stage.stage != "prepare"}


def test_the_evaluation_scores_it_as_a_model_of_its_own_which_is_published(configs: Path) -> None:
    plan = make_plan("tiny", configs)
    pretrain, evaluate, publish = (plan.stage(name) for name in ("pretrain", "evaluate", "publish"))
    assert pretrain is not None
    assert evaluate is not None
    assert publish is not None
    assert pretrain.best == BY
    assert evaluate.run.config["models"] == ["pretrain", NAME]
    assert publish.run.config["model"] == NAME
    assert evaluate.run.stages[NAME] == publish.run.stages[NAME] == plan.folder / NAME
    # The evaluation beside the training makes none.
    assert pretrain.during is not None
    assert pretrain.during.config["means"] == {}


def test_it_is_held_also_where_only_the_training_runs(configs: Path) -> None:
    plan = make_plan("tiny", configs, overrides=["only=[pretrain]"])
    assert [stage.stage for stage in plan.stages] == ["prepare", "pretrain"]
    assert plan.stages[1].best == BY


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["publish.checkpoint.best=tiny_bytes/bits_per_byte"], "found 'tiny_bytes/bits_per_byte'.*dev/task/metric"),
        (["publish.checkpoint.best=dev/tiny_bytes"], "found 'dev/tiny_bytes'.*dev/task/metric"),
        (["publish.checkpoint.best=test/tiny_bytes/bits_per_byte"], "test is for the scores that are reported"),
        (
            ["publish.checkpoint.best=dev/tiny_byte/acc"],
            "no task 'tiny_byte' is asked while pretrain trains.*tiny_bytes",
        ),
        (["publish.checkpoint.best=dev/tiny_bytes/acc"], "tiny_bytes has no metric 'acc'.*expected: bits_per_byte"),
        (["pretrain.during.every=null"], "pretrain isn't scored while it trains.*set pretrain.during.every: 4"),
        # The card reports it; or nobody does, and its items are those of its own file.
        (
            ["pretrain.during.tasks=[tiny_colour]", "publish.checkpoint.best=dev/tiny_colour/acc"],
            "the card reports tiny_colour, which asks the same items",
        ),
        (
            [
                "pretrain.during.tasks=[tiny_colour]",
                "evaluate.tasks=[tiny_bytes]",
                "publish.checkpoint.best=dev/tiny_colour/acc",
            ],
            "tiny_colour doesn't ask the dev part of the evaluation's data.*held_out",
        ),
        (["publish.model=nowhere"], "publish.model: found 'nowhere', which no module of this experiment trains"),
        (["publish.model=evaluate"], "publish.model: found 'evaluate', which no module"),
        (["modules.evaluate=null"], "and nothing is evaluated"),
        (["evaluate.models={a: ./elsewhere}"], "and evaluate.models names folders"),
    ],
)
def test_what_tells_no_best_is_refused(configs: Path, settings: list[str], said: str) -> None:
    text = refusal(configs, *settings)
    assert re.search(said, text, re.DOTALL), text
    assert "tiny.yaml:" in text or "--set " in text


def test_a_key_that_is_no_choice_is_refused(configs: Path) -> None:
    assert "unknown key" in refusal(configs, "publish.checkpoint.worst=dev/tiny_bytes/bits_per_byte")


def test_a_mean_has_one_checkpoint(configs: Path) -> None:
    text = refusal(
        configs,
        "evaluate.models={avg: {mean: {of: pretrain, last: 2}}}",
        "publish.model=avg",
        "pretrain.training.steps=12",
    )
    assert "avg is a mean, which has one checkpoint" in text


def test_data_without_parts_has_no_dev_part(configs: Path, tmp_path: Path) -> None:
    items = f"kind: evals\npath: {tmp_path}/heldout.jsonl\n"
    (tmp_path / "heldout.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (configs / "data" / "items.yaml").write_text(items, encoding="utf-8")
    edit(configs / "evals" / "tiny_bytes.yaml", "items.jsonl", "heldout.jsonl")
    edit(configs / "experiments" / "tiny.yaml", "evaluate:", "evaluate:\n    data: items.yaml")
    edit(configs / "experiments" / "tiny.yaml", "    data: text.yaml\n  publish", "  publish")
    assert "the card reports tiny_bytes, which asks the same items" in refusal(configs)


def test_a_metric_of_which_nothing_says_what_is_better_is_refused(configs: Path) -> None:
    task = configs / "evals" / "tiny_bytes.yaml"
    edit(task, "{metric: bits_per_byte, higher_is_better: true}", "{metric: own_score, aggregation: mean}")
    with task.open("a", encoding="utf-8") as file:
        file.write("process_results: !function scored.score\n")
    (configs / "evals" / "scored.py").write_text(
        "def score(doc, results):\n    return {'own_score': 1}\n", encoding="utf-8"
    )
    text = refusal(configs, "publish.checkpoint.best=dev/tiny_bytes/own_score")
    assert "nothing says whether a larger own_score is better" in text
    assert "tiny_bytes.yaml:" in text


def test_once_it_is_known_the_plan_names_its_step(configs: Path) -> None:
    plan = finish(configs, upto="pretrain")
    # Of equal scores the earliest counts, and one that failed doesn't.
    score(plan, step_4=None, step_8=0.5, step_12=0.5)
    evaluate = make_plan("tiny", configs).stage("evaluate")
    assert evaluate is not None
    assert evaluate.reason == f"new; {NAME} is step 8 of pretrain, the best of 2 by {BY} (0.5)"


def test_a_finished_training_without_a_score_is_refused_before_anything_runs(configs: Path) -> None:
    plan = finish(configs, upto="pretrain")
    assert f"no checkpoint of pretrain was scored by {BY}" in refusal(configs)
    score(plan, step_8=None)
    text = refusal(configs)
    assert f"no checkpoint of pretrain was scored by {BY}: it was killed by SIGKILL" in text
    assert "leave checkpoint.best out" in text


def test_a_best_checkpoint_that_is_gone_is_refused(configs: Path) -> None:
    plan = finish(configs, upto="pretrain")
    score(plan, step_4=0.5, step_8=0.4)
    assert "step 4 of pretrain, the best of 2" in refusal(configs)
    assert "wasn't kept" in refusal(configs)
    write_checkpoint(plan.folder / "pretrain" / "during" / "step-4")
    assert states(make_plan("tiny", configs))["evaluate"] == "RUN"


def test_it_stays_cached_although_its_checkpoint_goes(configs: Path) -> None:
    plan = evaluated(configs)
    shutil.rmtree(plan.folder / "pretrain" / "during")
    assert set(states(make_plan("tiny", configs)).values()) == {"CACHED"}


def test_another_best_makes_the_evaluation_stale(configs: Path) -> None:
    plan = evaluated(configs)
    score(plan, step_8=0.6)
    again = make_plan("tiny", configs)
    assert states(again) == {"pretrain": "CACHED", "evaluate": "STALE", "publish": "RUN"}
    with pytest.raises(ConfigError, match=f"evaluate.{NAME}: step: 4 → 8"):
        check_stale(again)
    kept = make_plan("tiny", configs, overrides=["on_stale=keep"])
    check_stale(kept)
    assert set(states(kept).values()) == {"CACHED"}


def test_more_steps_make_evaluation_and_publication_stale(configs: Path) -> None:
    edit(configs / "experiments" / "tiny.yaml", "warmup_steps: 2", "warmup_steps: 2\n        decay_ratio: 0.0")
    edit(configs / "experiments" / "tiny.yaml", "steps: 12", "steps: 8")
    evaluated(configs)
    more = make_plan("tiny", configs, overrides=["pretrain.training.steps=12"])
    assert states(more) == {"pretrain": "EXTEND", "evaluate": "STALE", "publish": "STALE"}


def test_another_score_makes_another_choice(configs: Path) -> None:
    evaluated(configs)
    edit(configs / "evals" / "tiny_bytes.yaml", "[{metric", "[{metric: byte_perplexity}, {metric")
    again = make_plan("tiny", configs)
    assert (again.stages[-1].state, again.stages[-2].state) == ("STALE", "STALE")
