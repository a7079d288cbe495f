"""Checks a publish module's gate before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from titanflow.common.errors import Problem, did_you_mean
from titanflow.config.module import Module
from titanflow.config.stages import modules_of
from titanflow.evals.asked_tasks import asked_by, has_metric, known_metrics

LEAST_RESAMPLES = 100
"""With fewer, the last few percent are noise."""
SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics that lie between 0 and 1."""
EACH_TAIL = 5
"""The least number of resamples beyond a confidence bound."""


def check_gate(modules: Mapping[str, Module]) -> list[Problem]:
    """Mistakes in the gates of the publish modules."""
    return [problem for publish in modules_of("publish", modules) for problem in _check(publish, modules)]


def _check(publish: Module, modules: Mapping[str, Module]) -> list[Problem]:
    gate, evaluate = publish.config["gate"], modules.get(publish.config["evaluation"])
    problems = _check_numbers(publish)
    if not gate["thresholds"] and not gate["better_than_last"]:
        return problems
    if evaluate is None:
        key = "thresholds" if gate["thresholds"] else "better_than_last"
        hint = "add an evaluate module, or leave the gate out"
        return [*problems, publish.problem(f"gate.{key}", "found a gate, and nothing is evaluated", hint=hint)]
    if gate["better_than_last"] and not evaluate.config["log_samples"]:
        message = f"found false, and {publish.name}.gate.better_than_last compares the samples"
        problems.append(evaluate.problem("log_samples", message, expected="true"))
    if gate["better_than_last"] and publish.config["target"] == "folder" and not publish.config["folder"]:
        message = "found none: a run's own folder never holds an earlier model to compare with"
        hint = "name a folder that the runs share, or set target: hub"
        problems.append(publish.problem("folder", message, hint=hint))
    asked = asked_by(evaluate.config)
    known = known_metrics(asked)
    return problems + (_check_names(publish, known, asked.groups) if known else [])


def _check_numbers(publish: Module) -> list[Problem]:
    gate, problems = publish.config["gate"], []
    confidence, resamples = gate["confidence"], gate["resamples"]
    if not 0 < confidence < 1:
        hint = f"as a share: {confidence / 100:g}" if 1 < confidence < 100 else ""
        problems.append(publish.problem("gate.confidence", f"found {confidence}", "a number between 0 and 1", hint))
    elif resamples < LEAST_RESAMPLES or resamples * min(confidence, 1 - confidence) < EACH_TAIL:
        least = max(LEAST_RESAMPLES, math.ceil(EACH_TAIL / min(confidence, 1 - confidence) - 1e-9))
        expected = f"at least {least}, with confidence {confidence}"
        problems.append(publish.problem("gate.resamples", f"found {resamples}", expected))
    for name in gate["thresholds"]:
        key = f"gate.thresholds.{name}"
        if not all(name.rpartition("/")[::2]):
            problems.append(publish.problem(key, f"found {name!r}", "task/metric", "as in `stdlib_kind/acc: 0.8`"))
    return problems + _check_shares(publish)


def _check_shares(publish: Module) -> list[Problem]:
    """Bounds of a metric that is a share which any model would pass, or none."""
    gate, problems = publish.config["gate"], []
    for name, bound in gate["thresholds"].items():
        metric = name.rpartition("/")[2].partition(",")[0]
        if metric in SHARES and not 0 <= bound <= 1:
            hint = f"as a share: {bound / 100:g}" if 1 < bound <= 100 else ""
            message = f"found {bound:g}, and {metric} is a share"
            problems.append(publish.problem(f"gate.thresholds.{name}", message, "a number from 0 to 1", hint))
    metric, margin = gate["metric"].partition(",")[0], gate["margin"]
    if metric in SHARES and abs(margin) >= 1:
        passes = "any model would pass" if margin < 0 else "no model could pass"
        hint = f"as a share: {margin / 100:g}" if 1 < abs(margin) < 100 else ""
        message, expected = f"found {margin:g}, and {metric} is a share: {passes}", "a number between -1 and 1"
        problems.append(publish.problem("gate.margin", message, expected, hint))
    return problems


def _check_names(publish: Module, known: Mapping[str, list[str]], groups: Iterable[str]) -> list[Problem]:
    """Tasks and metrics that the evaluation won't have; ``known`` is task or group → metrics, empty where unknown."""
    gate, problems = publish.config["gate"], []
    for name in gate["thresholds"]:
        task, _, metric = name.rpartition("/")
        key = f"gate.thresholds.{name}"
        if not task or not metric:
            continue  # no task/metric, as was said of it
        if task not in known:
            problems.append(_unknown(publish, key, f"no task {task!r} is evaluated", task, known))
        elif not has_metric(known[task], metric):
            problems.append(_unknown(publish, key, f"{task} has no metric {metric!r}", metric, known[task]))
    if not gate["better_than_last"]:
        return problems
    metric = gate["metric"]
    # A group has scores, but no samples to compare.
    known = {name: metrics for name, metrics in known.items() if name not in groups}
    for task in gate["tasks"]:
        if task not in known:
            problems.append(_unknown(publish, "gate.tasks", f"no task {task!r} is evaluated", task, known))
        elif not has_metric(known[task], metric):
            problems.append(_unknown(publish, "gate.metric", f"{task} has no metric {metric!r}", metric, known[task]))
    if not gate["tasks"] and not any(has_metric(metrics, metric) for metrics in known.values()):
        metrics = sorted({name for found in known.values() for name in found})
        message = f"no evaluated task has the metric {metric!r}"
        problems.append(_unknown(publish, "gate.metric", message, metric, metrics))
    return problems


def _unknown(publish: Module, key: str, message: str, given: str, known: Iterable[str]) -> Problem:
    return publish.problem(key, message, ", ".join(known), did_you_mean(given, known))
