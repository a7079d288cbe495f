"""Whether a model may be published: thresholds, and a comparison with the model that was published last.

Each compared task is a test of its own, and all must pass, so the model is better on every one. A model that is no
better on one of them passes with at most the chance that ``confidence`` leaves, however many tasks there are: an
intersection-union test needs no correction (Berger, Technometrics 24, 1982). It would need one if a single better task
among several were enough, which is not what "better" says.

If two models can't be compared fairly, the new one is held back, with the reason.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator

import numpy as np

from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.config.keys.after_training import Gate
from titanflow.publish.gate.paired_bootstrap import Pairs, paired_interval
from titanflow.publish.gate.published import Published
from titanflow.publish.gate.samples import MetricSamples, Samples, TaskSamples, as_array
from titanflow.publish.lineage import EvaluatedStage
from titanflow.runs.results import Comparison, GateDecision, Threshold, is_stderr

ROUNDING = 1e-9
"""A bound has to clear the margin by this much, so that the rounding of equal sums decides nothing."""
LISTED = 3
"""How many tasks a reason names."""
ANEW = "publish once with better_than_last: false, and the next model is compared with this one"


def decide(gate: Gate, evaluation: EvaluatedStage, samples: Samples | None, last: Published | None) -> GateDecision:
    """Whether the evaluated model may replace the model that was published last.

    ``samples`` are its own. ``last`` is None if nothing was published yet; the model then passes.
    """
    thresholds = [threshold(key, bound, evaluation) for key, bound in gate.thresholds.items()]
    missed = [missed_by(one) for one in thresholds if not one.passed]
    decision = GateDecision(
        passed=not missed,
        reason=f"a threshold is missed: {listed(missed)}" if missed else "all thresholds are reached",
        thresholds=thresholds,
        confidence=gate.confidence,
        margin=gate.margin,
    )
    if not gate.better_than_last:
        return decision
    if samples is None:
        hint = f"set {evaluation.result.stage}.log_samples to true"
        raise ConfigError(Problem("the evaluation kept no samples", "gate.better_than_last", hint=hint))
    return compared(decision, gate, samples, last)


def threshold(key: str, bound: float, evaluation: EvaluatedStage) -> Threshold:
    """One threshold beside the score; a score that isn't a number doesn't reach it."""
    task, _, metric = key.rpartition("/")
    scores, better = evaluation.scores, evaluation.result.higher_is_better.get(task, {})
    if metric not in scores.get(task, {}) and metric.partition(",")[0] not in better:
        known = [f"{task}/{name}" for task, found in scores.items() for name in found if not is_stderr(name)]
        raise unknown(f"nothing was evaluated as {key!r}", "thresholds", key, known)
    value = scores.get(task, {}).get(metric, math.nan)
    higher = better.get(metric.partition(",")[0], True)
    return Threshold(
        task=task, metric=metric, value=value, bound=bound, passed=value >= bound if higher else value <= bound
    )


def missed_by(threshold: Threshold) -> str:
    """How a threshold was missed: ``kind/acc is 0.5, and at least 0.6 is asked for``."""
    bound = "at most" if threshold.value > threshold.bound else "at least"
    return f"{threshold.task}/{threshold.metric} is {threshold.value:.4g}, and {bound} {threshold.bound:g} is asked for"


def unknown(message: str, key: str, given: str, known: list[str]) -> ConfigError:
    hint = did_you_mean(given, known)
    return ConfigError(Problem(message, f"gate.{key}", expected=", ".join(known), hint=hint))


def compared(decision: GateDecision, gate: Gate, samples: Samples, last: Published | None) -> GateDecision:
    tasks = compared_tasks(gate, samples, last)
    if last is None:
        return with_reason(decision, True, "nothing was published here before, so there is nothing to compare it with")
    decision = decision.model_copy(update={"against": last.name})
    if last.samples is None:
        return with_reason(decision, False, f"{last.name} was published without its samples; {ANEW}")
    refusals = list(differences_in_setting(samples, last.samples))
    for task in tasks:
        refusals += differences_in_task(task, gate.metric, samples.tasks.get(task), last.samples.tasks.get(task))
    if refusals:
        return with_reason(decision, False, f"it can't be compared with {last.name}: {listed(refusals)}; {ANEW}")
    comparisons = [compare(task, gate, samples, last.samples) for task in tasks]
    worse = [f"{one.task}/{one.metric}" for one in comparisons if not one.passed]
    sure = f"{gate.confidence * 100:g} % sure to be {wanted(gate.margin, last.name)}"
    reason = f"not {sure} on {listed(worse)}" if worse else f"{sure} on {listed(tasks)}"
    return with_reason(decision.model_copy(update={"comparisons": comparisons}), not worse, reason)


def wanted(margin: float, name: str) -> str:
    if margin < 0:
        return f"at most {-margin:g} worse than {name}"
    return f"better than {name}" + (f" by more than {margin:g}" if margin else "")


def with_reason(decision: GateDecision, passed: bool, reason: str) -> GateDecision:
    """The decision after one more test, with the reasons of all failed tests, or of all passed ones."""
    if decision.thresholds and decision.passed == passed:
        reason = f"{decision.reason}; {reason}"
    elif not decision.passed:
        reason = decision.reason
    return decision.model_copy(update={"passed": decision.passed and passed, "reason": reason})


def compared_tasks(gate: Gate, samples: Samples, last: Published | None) -> list[str]:
    """The tasks that the gate names, or all for which either model has the metric."""
    own = [task for task, found in samples.tasks.items() if gate.metric in found.metrics]
    for task in gate.tasks:
        if task not in own:
            found = samples.tasks.get(task, TaskSamples(keys=[])).metrics
            message = f"{task!r} has no samples of {gate.metric}" + (f", only of {', '.join(found)}" if found else "")
            raise unknown(message, "tasks", task, own)
    if not own:
        metrics = {metric for found in samples.tasks.values() for metric in found.metrics}
        raise unknown(f"no task has samples of {gate.metric!r}", "metric", gate.metric, sorted(metrics))
    before = last.samples.tasks if last is not None and last.samples is not None else {}
    return gate.tasks or list(dict.fromkeys([*own, *(task for task in before if gate.metric in before[task].metrics)]))


def differences_in_setting(new: Samples, last: Samples) -> Iterator[str]:
    """The differences between the two evaluations, each a reason not to compare them."""
    settings = {
        "limit": (new.limit, last.limit),
        "seeds": (new.seeds, last.seeds),
        **{key: (new.settings.get(key), last.settings.get(key)) for key in {**new.settings, **last.settings}},
        "lm-eval": (minor(new.lm_eval), minor(last.lm_eval)),
    }
    for name, (ours, theirs) in settings.items():
        if ours != theirs:
            # Anybody may have written the other text: quote one short line of it.
            yield f"{name} {reprlib.repr(theirs)} then, {reprlib.repr(ours)} now"


def minor(version: str) -> str:
    """A version without its last part, in which lm-eval changes no score."""
    return ".".join(version.split(".")[:2])


def differences_in_task(task: str, metric: str, new: TaskSamples | None, last: TaskSamples | None) -> Iterator[str]:
    if new is None or last is None or metric not in new.metrics or metric not in last.metrics:
        lacking = "this model has" if new is None or metric not in new.metrics else "the last one has"
        yield f"{lacking} no samples of {task}/{metric} (gate.tasks says what is compared)"
        return
    if new.version != last.version:
        yield f"{task} was version {reprlib.repr(last.version)} and is {reprlib.repr(new.version)}"
    if new.n_shot != last.n_shot:
        yield f"{task} had {last.n_shot} examples in the prompt and has {new.n_shot}"
    gone, added = set(last.keys) - set(new.keys), set(new.keys) - set(last.keys)
    if gone or added:
        yield f"{task}: {len(gone)} of the last one's {len(last.keys)} samples are missing, {len(added)} are new"
    elif not alike(new.metrics[metric], last.metrics[metric], new.keys, last.keys):
        yield f"{task}/{metric} is computed from its samples in another way"


def alike(new: MetricSamples, last: MetricSamples, new_keys: list[str], last_keys: list[str]) -> bool:
    """Whether both are the same measure of the same samples with the same weights."""
    if (new.aggregation, new.higher_is_better) != (last.aggregation, last.higher_is_better):
        return False
    if not len(new.values) == len(new_keys) == len(last_keys) == len(last.values):
        return False
    ours, theirs = in_order(new, new_keys), in_order(last, last_keys)
    return bool((ours[:, 1] == theirs[:, 1]).all())


def in_order(samples: MetricSamples, keys: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Scores and weights in the order of the keys: ``[samples, 2]``."""
    array = as_array(samples.values)
    return array[np.argsort(np.array(keys))]


def compare(task: str, gate: Gate, new: Samples, last: Samples) -> Comparison:
    ours, theirs = new.tasks[task], last.tasks[task]
    metric = ours.metrics[gate.metric]
    now, before = in_order(metric, ours.keys), in_order(theirs.metrics[gate.metric], theirs.keys)
    pairs = Pairs(now[:, 0], before[:, 0], now[:, 1], metric.aggregation, metric.higher_is_better)
    interval = paired_interval(pairs, gate.confidence, gate.resamples)
    return Comparison(
        task=task,
        metric=gate.metric,
        pairs=len(ours.keys),
        difference=interval.difference,
        low=interval.low,
        high=interval.high,
        passed=interval.low > gate.margin + ROUNDING,
    )


def listed(texts: list[str]) -> str:
    more = len(texts) - LISTED
    return "; ".join(texts[:LISTED]) + (f"; and {more} more" if more > 0 else "")
