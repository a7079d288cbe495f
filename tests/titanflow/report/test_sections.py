import json
from dataclasses import replace
from pathlib import Path

import pytest
from reported_run import evaluation, write_plan, write_training

from titanflow.publish.card.score_table import Score
from titanflow.report.contents import read_contents
from titanflow.report.render import render_report
from titanflow.report.sections import Interval, evaluated_models, inheritance, interval, result_table, tiles, timings
from titanflow.runs.contract import StageRun
from titanflow.runs.results import write_result


def test_the_head_s_figures(run_folder: Path) -> None:
    found = {tile.label: (tile.value, tile.note) for tile in tiles(read_contents(run_folder))}
    assert found == {
        "parameters": ("2.3 M", "llama3 demo"),
        "tokens trained": ("8.19 k", "pretrain + sft"),
        "sft loss": ("1.000", "held out 1.250"),
        "colour": ("0.900", "acc, base 0.500"),
        "time": ("2.5 min", "5 stages"),
    }


def test_the_head_and_the_table_are_about_the_model_that_is_published(run_folder: Path) -> None:
    write_training(run_folder, "sft_slow", kind="sft", loss=2.0)
    write_plan(run_folder, ["pretrain", "sft", "sft_slow", "evaluate", "publish"])
    scores = evaluation().scores | {"average": {"colour": {"acc": 0.7}, "text": {"bits_per_byte": 2.5}}}
    write_result(run_folder / "evaluate", evaluation(scores=scores, part="dev"))
    # Before it begins to publish, nothing says which model that is.
    (scored,) = read_contents(run_folder).evaluations
    assert [scored.outcome, result_table(scored)["models"][-1]] == ["average"] * 2
    run = {"stage": "publish", "experiment": "tiny", "run": "main", "folder": run_folder / "publish"}
    StageRun(**run, config={"model": "sft", "evaluation": "evaluate"}).write()
    contents = read_contents(run_folder)
    found = {tile.label: (tile.value, tile.note) for tile in tiles(contents)}
    assert found["colour"] == ("0.900", "acc, base 0.500")
    assert found["sft loss"] == ("1.000", "held out 1.250")
    assert contents.evaluation is not None
    table = result_table(contents.evaluation)
    assert (table["models"], table["part"]) == (["base", "average", "sft"], "dev")
    means = {"average": {"mean": ["sft", "sft_slow"]}}
    folder = run_folder / "evaluate"
    StageRun(stage="evaluate", experiment="tiny", run="main", folder=folder, config={"means": means}).write()
    folders = {name: run_folder / name / "export" for name in scores}
    write_result(folder, evaluation(scores=scores, part="dev", folders=folders))
    (scored,) = read_contents(run_folder).evaluations
    told = {one.name: one.mean for one in evaluated_models(scored)}
    assert told == {"base": "", "average": "the mean of sft and sft_slow", "sft": ""}
    assert "<h2>Results on the dev part</h2>" in render_report(run_folder)


def test_bars_are_shares_of_the_longest(run_folder: Path) -> None:
    assert timings(read_contents(run_folder))[:2] == [
        ("prepare", "10 s", 20.0),
        ("pretrain", "20 s, forecast 25 s", 40.0),
    ]


def test_what_is_the_stage_s_own_comes_before_what_is_inherited(run_folder: Path) -> None:
    (stage,) = read_contents(run_folder).of_kind("sft")
    table = inheritance(stage)
    assert [(row.key, row.value) for row in table["own"]] == [
        ("optimizer.lr", "0.001 → 0.0001"),
        ("debug.seed", "7"),
    ]
    assert [row.key for row in table["inherited"]] == ["model.dim"]


def test_of_a_stage_that_isn_t_finished_the_plan_s_table_is_shown(run_folder: Path) -> None:
    (run_folder / "sft" / "result.json").unlink()
    plan = json.loads((run_folder / "plan.json").read_text())
    row = {"key": "loss_mask", "how": "changed", "base": "off", "here": "on"}
    next(stage for stage in plan["stages"] if stage["stage"] == "sft")["inheritance"] = [row]
    (run_folder / "plan.json").write_text(json.dumps(plan))
    (stage,) = read_contents(run_folder).of_kind("sft")
    assert [str(found) for found in inheritance(stage)["own"]] == ["Changed loss_mask: off → on"]


@pytest.mark.parametrize(
    ("score", "metric", "expected"),
    [
        (Score(0.5, 0.1), "f1", Interval(50.0, 30.4, 39.2)),
        (Score(0.99, 0.02), "acc_norm", Interval(99.0, 95.08, 4.92)),
        (Score(0.5, 0.1), "exact_match,strict-match", Interval(50.0, 30.4, 39.2)),
        (Score(0.05, 0.1), "mcc", None),
        (Score(0.9, 0.1), "bits_per_byte", None),
        (Score(0.5, None), "acc", None),
        (Score(2.5, 0.1), "acc", None),
        (Score(None, None), "acc", None),
    ],
)
def test_an_interval_stays_on_its_scale(score: Score, metric: str, expected: Interval | None) -> None:
    assert interval(replace(score, samples=200), metric) == expected


@pytest.mark.parametrize(
    ("right", "expected"),
    # Wilson's interval: of 0 of 200 the upper end is z² / (n + z²).
    [(0, Interval(0.0, 0.0, 1.88)), (200, Interval(100.0, 98.12, 1.88)), (100, Interval(50.0, 43.14, 13.73))],
)
def test_a_share_has_wilsons_interval(right: int, expected: Interval) -> None:
    share = right / 200
    stderr = (share * (1 - share) / 199) ** 0.5
    assert interval(Score(share, stderr, 200), "answered") == expected
