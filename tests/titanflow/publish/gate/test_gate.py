"""The gate's decision, and what it refuses to compare."""

import math
import re
from typing import Any

import numpy as np
import pytest
from finished_run import evaluated_stage
from finished_stage import evaluate_result

from titanflow.common.errors import ConfigError
from titanflow.config.keys.after_training import Gate
from titanflow.publish.gate.gate import decide, listed, minor
from titanflow.publish.gate.published import Published
from titanflow.publish.gate.samples import MetricSamples, Samples, TaskSamples
from titanflow.publish.lineage import EvaluatedStage
from titanflow.runs.results import GateDecision, Threshold

pytestmark = pytest.mark.slow

BETTER = Gate(better_than_last=True, resamples=500)


def task(right: int, count: int = 100, **changes: Any) -> TaskSamples:
    values = [1.0] * right + [0.0] * (count - right)
    acc = MetricSamples(aggregation="mean", higher_is_better=True, values=values)
    fields: dict[str, Any] = {"version": "1.0", "n_shot": 0, "keys": [f"k{number:03}" for number in range(count)]}
    return TaskSamples(**{**fields, "metrics": {"acc": acc}, **changes})


def samples(right: int = 50, **changes: Any) -> Samples:
    fields: dict[str, Any] = {"lm_eval": "0.4.13", "seeds": {"fewshot": 1234}, "tasks": {"kind": task(right)}}
    return Samples(**{**fields, **changes})


def last(found: Samples | None) -> Published:
    return Published("c0ffee", samples=found)


def evaluation(**scores: float) -> EvaluatedStage:
    better = {"acc": True, "bits_per_byte": False, "exact_match": True}
    result = evaluate_result(scores={"sft": {"kind": scores}}, higher_is_better={"kind": better})
    return evaluated_stage(result)


def compare(new: Samples, before: Samples, gate: Gate = BETTER) -> GateDecision:
    return decide(gate, evaluation(acc=0.5), new, last(before))


@pytest.mark.parametrize(
    ("metric", "value", "bound", "passed"),
    [
        ("acc", 0.8, 0.8, True),
        ("acc", 0.79, 0.8, False),
        ("bits_per_byte", 2.0, 2.1, True),
        ("bits_per_byte", 2.2, 2.1, False),
        ("exact_match,strict", 0.4, 0.5, False),
    ],
)
def test_a_threshold_is_the_least_or_the_most(metric: str, value: float, bound: float, passed: bool) -> None:
    gate = Gate(thresholds={f"kind/{metric}": bound})
    decision = decide(gate, evaluation(**{metric: value}), None, None)
    assert decision.thresholds == [Threshold(task="kind", metric=metric, value=value, bound=bound, passed=passed)]
    assert decision.passed is passed
    if not passed:
        assert f"kind/{metric} is {value:.4g}, and at" in decision.reason
        assert ("at most" if metric == "bits_per_byte" else "at least") in decision.reason


def test_a_score_that_is_no_number_reaches_no_threshold() -> None:
    decision = decide(Gate(thresholds={"kind/exact_match": 0.1}), evaluation(acc=0.5), None, None)
    assert math.isnan(decision.thresholds[0].value)
    assert not decision.passed


def test_a_threshold_on_what_was_not_evaluated_is_the_config_s_mistake() -> None:
    with pytest.raises(ConfigError, match=r"gate\.thresholds: nothing was evaluated as 'knid/acc'") as caught:
        decide(Gate(thresholds={"knid/acc": 0.1}), evaluation(acc=0.5), None, None)
    assert "did you mean kind/acc?" in str(caught.value)


def test_the_first_model_passes() -> None:
    decision = decide(BETTER, evaluation(acc=0.5), samples(), None)
    assert (decision.passed, decision.reason, decision.against) == (
        True,
        "nothing was published here before, so there is nothing to compare it with",
        "",
    )


def test_a_better_model_passes_and_a_worse_one_is_held_back() -> None:
    better, worse = compare(samples(70), samples(50)), compare(samples(50), samples(70))
    assert better.passed
    assert better.reason == "95 % sure to be better than c0ffee on kind"
    assert not worse.passed
    assert worse.reason == "not 95 % sure to be better than c0ffee on kind/acc"
    (up,), (down,) = better.comparisons, worse.comparisons
    assert (up.task, up.metric, up.pairs, up.passed) == ("kind", "acc", 100, True)
    assert up.difference == -down.difference == pytest.approx(0.2)
    assert 0 < up.low < 0.2 < up.high
    assert better.against == "c0ffee"


def test_the_same_scores_are_not_better() -> None:
    assert not compare(samples(50), samples(50)).passed
    lenient = compare(samples(50), samples(50), Gate(better_than_last=True, resamples=500, margin=-0.1))
    assert lenient.passed
    assert lenient.reason == "95 % sure to be at most 0.1 worse than c0ffee on kind"


def test_a_margin_has_to_be_cleared() -> None:
    gate = Gate(better_than_last=True, resamples=500, margin=0.15)
    decision = compare(samples(70), samples(50), gate)
    assert not decision.passed
    assert "by more than 0.15" in decision.reason


def test_every_task_has_to_be_better() -> None:
    new = samples(tasks={"kind": task(70), "summary": task(50)})
    before = samples(tasks={"kind": task(50), "summary": task(50)})
    decision = compare(new, before)
    assert [one.passed for one in decision.comparisons] == [True, False]
    assert "on summary/acc" in decision.reason
    assert compare(new, before, Gate(better_than_last=True, tasks=["kind"], resamples=500)).passed


def test_samples_are_paired_by_their_keys_in_whatever_order_they_lie() -> None:
    turned = task(50)
    acc = turned.metrics["acc"].model_copy(update={"values": turned.metrics["acc"].values[::-1]})
    turned = turned.model_copy(update={"keys": turned.keys[::-1], "metrics": {"acc": acc}})
    decision = compare(samples(tasks={"kind": turned}), samples(50), Gate(better_than_last=True, margin=-0.1))
    assert decision.passed


def changed(**changes: Any) -> Samples:
    return samples(tasks={"kind": task(50, **changes)})


# As nothing here writes it: a key twice, and values for fewer keys than there are.
TWICE = task(50, 101, keys=[*task(50).keys, "k000"])
FEWER = task(50, 90, keys=task(50).keys)
OTHER_BYTES = MetricSamples(aggregation="mean", higher_is_better=True, values=[(1.0, 2.0)] * 100)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (changed(version="2.0"), "kind was version '2.0' and is '1.0'"),
        (changed(n_shot=5), "kind had 5 examples in the prompt and has 0"),
        (samples(seeds={"fewshot": 1}), "seeds {'fewshot': 1} then, {'fewshot': 1234} now"),
        (samples(limit=10), "limit 10.0 then, None now"),
        (samples(lm_eval="0.5.0"), "lm-eval '0.5' then, '0.4' now"),
        (samples(settings={"dtype": "bfloat16"}), "dtype 'bfloat16' then, None now"),
        (samples(settings={"batch_size": 4}), "batch_size 4 then, None now"),
        (samples(settings={"gen_kwargs": {"top_k": 3}}), "gen_kwargs {'top_k': 3} then, None now"),
        (samples(tasks={"kind": task(50, 110)}), "kind: 10 of the last one's 110 samples are missing, 0 are new"),
        (samples(tasks={"kind": task(50, 90)}), "kind: 0 of the last one's 90 samples are missing, 10 are new"),
        (samples(tasks={}), "the last one has no samples of kind/acc"),
        (changed(metrics={}), "the last one has no samples of kind/acc"),
        (samples(tasks={"kind": task(50), "other": task(50)}), "this model has no samples of other/acc"),
        (changed(metrics={"acc": OTHER_BYTES}), "kind/acc is computed from its samples in another way"),
        (samples(tasks={"kind": TWICE}), "kind/acc is computed from its samples in another way"),
        (samples(tasks={"kind": FEWER}), "kind/acc is computed from its samples in another way"),
        (None, "c0ffee was published without its samples; publish once with better_than_last: false"),
    ],
)
def test_what_is_not_measured_alike_is_not_compared(before: Samples | None, says: str) -> None:
    decision = decide(BETTER, evaluation(acc=0.5), samples(90), last(before))
    assert not decision.passed
    assert says in decision.reason
    assert decision.comparisons == []


def test_another_patch_of_lm_eval_compares() -> None:
    assert minor("0.4.13") == minor("0.4.9") != minor("0.5.0")
    assert compare(samples(90), samples(50, lm_eval="0.4.9")).passed


@pytest.mark.parametrize(
    ("gate", "found", "key", "says"),
    [
        (Gate(better_than_last=True, tasks=["knid"]), samples(), "tasks", "did you mean kind?"),
        (Gate(better_than_last=True, tasks=["kind"], metric="f1"), samples(), "tasks", "no samples of f1, only of acc"),
        (Gate(better_than_last=True, metric="acc_norm"), samples(), "metric", "no task has samples of 'acc_norm'"),
        (BETTER, None, "better_than_last", "set evaluate.log_samples to true"),
    ],
)
def test_a_comparison_that_no_evaluation_could_make(gate: Gate, found: Samples | None, key: str, says: str) -> None:
    for published in (None, last(samples())):
        with pytest.raises(ConfigError, match=re.escape(says)) as caught:
            decide(gate, evaluation(acc=0.5), found, published)
        assert f"gate.{key}" in str(caught.value)


def test_thresholds_and_comparison_both_count() -> None:
    def reason(bound: float, right: int) -> tuple[bool, str]:
        gate = Gate(thresholds={"kind/acc": bound}, better_than_last=True, resamples=500)
        decision = decide(gate, evaluation(acc=0.5), samples(right), last(samples(50)))
        return decision.passed, decision.reason

    better, no_better = (
        "95 % sure to be better than c0ffee on kind",
        "not 95 % sure to be better than c0ffee on kind/acc",
    )
    missed = "a threshold is missed: kind/acc is 0.5, and at least 0.6 is asked for"
    assert reason(0.4, 80) == (True, f"all thresholds are reached; {better}")
    assert reason(0.6, 80) == (False, missed)
    assert reason(0.4, 50) == (False, no_better)
    assert reason(0.6, 50) == (False, f"{missed}; {no_better}")


def test_a_long_list_is_cut() -> None:
    assert listed(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def answered(generator: np.random.Generator, lead: float, agreement: float) -> tuple[TaskSamples, TaskSamples]:
    """A task's 100 samples by a new model and the last one, whose accuracies differ by ``lead``."""
    hard = generator.random(100)
    other = np.where(generator.random(100) < agreement, hard, generator.random(100))
    tasks = []
    for right in (other < 0.6 + lead, hard < 0.6):
        task_of = task(0)
        task_of.metrics["acc"].values = right.astype(float).tolist()
        tasks.append(task_of)
    return tasks[0], tasks[1]


@pytest.mark.parametrize(
    ("leads", "what", "least", "most"),
    [
        ((0.0,), "no true difference", 0.0, 0.064),
        ((0.0, 0.25), "better on one of two tasks alone", 0.0, 0.064),
        ((0.25, 0.25), "better on both by five standard errors", 0.95, 1.0),
    ],
)
def test_the_gate_as_a_whole_keeps_its_rate(leads: tuple[float, ...], what: str, least: float, most: float) -> None:
    # 5 %, and two standard deviations of what a thousand trials make of it, are 6.4 %.
    generator, passed = np.random.default_rng(11), 0
    for _ in range(1000):
        pairs = {f"task{number}": answered(generator, lead, 0.5) for number, lead in enumerate(leads)}
        new = samples(tasks={name: pair[0] for name, pair in pairs.items()})
        before = samples(tasks={name: pair[1] for name, pair in pairs.items()})
        passed += compare(new, before).passed
    print(f"\n{what}: published {passed / 1000:.1%} of 1000 times, at a confidence of 95 %", end="")
    assert least <= passed / 1000 <= most
