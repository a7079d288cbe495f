from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment

TASKS = {
    "kind": "task: kind\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "answer": "task: answer\nprocess_results: !function answers.score\nmetric_list: [{metric: exact_match}]\n",
    "derived": "include: kind.yaml\ntask: derived\n",
}
MODULES = {
    "modules__evaluate": "models: [pretrain]\ninclude_path: evals\n",
    "modules__publish": "model: pretrain\nfolder: best\n",
}
Gated = Callable[..., Experiment]


@pytest.fixture
def gated(write: Callable[..., Path], load: Callable[..., Experiment]) -> Gated:
    """Loads an experiment whose publish module has this gate, and which evaluates these tasks."""

    def load_gated(gate: str, tasks: str = "[kind, answer]", evaluate: str = "", *settings: str) -> Experiment:
        modules = "  publish: {config: publish.yaml, overrides: {gate: " + gate + "}}\n"
        if tasks:
            modules = f"  evaluate: {{config: evaluate.yaml, overrides: {{tasks: {tasks}{evaluate}}}}}\n" + modules
        whole = "exp_name: gated\nmodules:\n  pretrain: {config: pretrain.yaml, model: tiny.yaml}\n" + modules
        path = write(**MODULES, experiments__exp=whole)
        for name, text in TASKS.items():
            (path.parent.parent / "evals").mkdir(exist_ok=True)
            (path.parent.parent / "evals" / f"{name}.yaml").write_text(text)
        return load(path, *settings)

    return load_gated


def test_a_gate_that_can_be_asked(gated: Gated) -> None:
    gate = "{thresholds: {kind/acc: 0.8, answer/exact_match: 0.5}, better_than_last: true, tasks: [kind], margin: 0.01}"
    loaded = gated(gate).modules["publish"].config["gate"]
    assert loaded["thresholds"] == {"kind/acc": 0.8, "answer/exact_match": 0.5}
    assert (loaded["confidence"], loaded["resamples"], loaded["metric"]) == (0.95, 10000, "acc")


@pytest.mark.parametrize(
    ("gate", "key", "says"),
    [
        ("{confidence: 95}", "confidence", "as a share: 0.95"),
        ("{confidence: 1.0}", "confidence", "a number between 0 and 1"),
        ("{confidence: 0}", "confidence", "a number between 0 and 1"),
        ("{resamples: 99}", "resamples", "at least 100"),
        ("{resamples: 1000, confidence: 0.999}", "resamples", "at least 5000, with confidence 0.999"),
        ("{margin: .nan}", "margin", "a finite number"),
        ("{margin: -1}", "margin", "found -1, and acc is a share: any model would pass"),
        ("{margin: 2, metric: 'acc,none'}", "margin", "no model could pass"),
        ("{thresholds: {kind/acc: 80}}", "thresholds.kind/acc", "as a share: 0.8"),
        ("{thresholds: {kind/acc: -0.1}}", "thresholds.kind/acc", "a number from 0 to 1"),
        ("{resamples: 1000000000}", "resamples", "at most 1000000"),
        ("{thresholds: {kind: 0.8}}", "thresholds.kind", "expected: task/metric"),
        ("{thresholds: {kind/acc: high}}", "thresholds", "found"),
        ("{thresholds: {knid/acc: 0.8}}", "thresholds.knid/acc", "did you mean kind?"),
        ("{thresholds: {kind/acc_nrom: 0.8}}", "thresholds.kind/acc_nrom", "did you mean acc_norm?"),
        ("{better_than_last: true, tasks: [anwser]}", "tasks", "did you mean answer?"),
        ("{better_than_last: true, tasks: [answer]}", "metric", "answer has no metric 'acc'"),
        ("{better_than_last: true, metric: accuracy}", "metric", "no evaluated task has the metric 'accuracy'"),
        ("{better_then_last: true}", "better_then_last", "did you mean `publish.gate.better_than_last`?"),
    ],
)
def test_a_gate_that_cannot_be_asked(gated: Gated, gate: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gated(gate)
    assert f"publish.gate.{key}" in str(caught.value)
    assert says in str(caught.value)
    assert "exp.yaml:" in str(caught.value) or str(caught.value).startswith("default: publish.gate.metric")


def test_a_threshold_without_a_metric_is_told_once(gated: Gated) -> None:
    with pytest.raises(ConfigError) as caught:
        gated("{thresholds: {kind: 0.8}}")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("gate", ["{better_than_last: true}", "{thresholds: {kind/acc: 0.8}}"])
def test_a_gate_needs_an_evaluation(gated: Gated, gate: str) -> None:
    with pytest.raises(ConfigError, match="found a gate, and nothing is evaluated"):
        gated(gate, tasks="")


def test_a_comparison_needs_samples(gated: Gated) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.log_samples: found false"):
        gated("{better_than_last: true}", "[kind]", ", log_samples: false")
    gated("{thresholds: {kind/acc: 0.8}}", "[kind]", ", log_samples: false")


def test_a_comparison_needs_a_place_where_runs_meet(gated: Gated) -> None:
    with pytest.raises(ConfigError, match=r"publish\.folder: found none") as caught:
        gated("{better_than_last: true}, folder: null", "[kind]")
    assert "name a folder that the runs share" in str(caught.value)
    gated("{better_than_last: true}, folder: null, target: hub, repo_id: a/b", "[kind]")


def test_names_that_cannot_be_known_are_left_to_the_evaluation(gated: Gated) -> None:
    gated("{thresholds: {mmlu_stem/acc: 0.5}}", "[kind, no_such_task]")
    gated("{thresholds: {'answer/exact_match,strict': 0.5}}")


def test_metrics_are_known_through_groups_bases_and_the_library(gated: Gated) -> None:
    gated("{thresholds: {derived/acc_norm: 0.5}}", "[derived]")
    gated("{thresholds: {arc_easy/acc_norm: 0.5}}", "[arc_easy]")
    for gate, tasks, says in (
        ("{thresholds: {derived/exact_match: 0.5}}", "[derived]", "derived has no metric 'exact_match'"),
        ("{thresholds: {arc_easy/acc_nrom: 0.5}}", "[arc_easy]", "did you mean acc_norm?"),
        ("{thresholds: {mmlu_stm/acc: 0.5}}", "[kind, mmlu]", "did you mean mmlu_stem?"),
        ("{better_than_last: true, tasks: [mmlu_stem]}", "[mmlu]", "no task 'mmlu_stem' is evaluated"),
    ):
        with pytest.raises(ConfigError) as caught:
            gated(gate, tasks)
        assert says in str(caught.value)


def test_nothing_is_asked_without_a_gate(gated: Gated) -> None:
    assert gated("{metric: anything}", tasks="").modules["publish"].config["gate"]["better_than_last"] is False
