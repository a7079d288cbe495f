"""Checks a task's metrics, aggregations and filters: those that lm-eval lacks, or that don't fit the output type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem, did_you_mean
from titanflow.evals.known_names import GENERATE, filters, registered
from titanflow.evals.task_yaml import Function, TaskYaml, as_list

if TYPE_CHECKING:
    from titanflow.evals.task_yaml import SingleTask

OUTPUT_TYPES = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
COMPUTED = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": (
        *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"),
        *("f1", "mcc", "brier_score", "likelihood"),
    ),
    "generate_until": ("exact_match", "bleu", "chrf", "chrf++", "ter", "bypass"),
}
"""The metrics that are computed for each output type: ``process_results`` of lm-eval 0.4.13's ``api/task.py``. Any
other metric silently gets no score, or fails at the first item."""
_MEANS = ("mean", "nanmean", "median")
_OF_COUNTS = ("weighted_perplexity", "bits_per_byte")
_OF_TEXTS = ("bleu", "chrf", "chrf++", "ter")
_OF_LABELS = ("f1", "matthews_corrcoef")
AGGREGATIONS: dict[str, tuple[str, ...]] = {
    "perplexity": ("perplexity", *_MEANS),
    **dict.fromkeys(COMPUTED["loglikelihood_rolling"], _OF_COUNTS),
    **dict.fromkeys(_OF_TEXTS, _OF_TEXTS),
    **dict.fromkeys(("f1", "mcc"), _OF_LABELS),
    "brier_score": ("brier_score",),
    "likelihood": (),
    "bypass": ("bypass",),
}
"""The aggregations that fit each metric's values per item; metrics not listed give numbers, which take a mean."""
OF_ANSWERS = ("regex", "regex_pos", "multi_choice_regex", "remove_whitespace", "lowercase", "uppercase", "format_span")
"""Filters of generated text; choices are scored by likelihoods instead."""
TWO = 2
"""Classes that lm-eval's ``f1`` distinguishes."""
OF_GROUP = ("metric", "filter_list", "aggregation", "weight_by_size")
"""Keys of a group's metric: ``AggMetricConfig`` of lm-eval's ``config/group.py``."""
AGGREGATE = "aggregate_metric_list"
_OWN_FILTER = re.compile(r"@register_filter\(\s*[\"']([^\"']+)")


def score_problems(task: SingleTask) -> list[Problem]:
    output = task.config.get("output_type", "generate_until")
    if output not in OUTPUT_TYPES:
        expected = f"one of {', '.join(OUTPUT_TYPES)}"
        return [task.yaml.problem("output_type", f"found {output!r}", expected, did_you_mean(output, OUTPUT_TYPES))]
    entries = as_list(task.config.get("metric_list"))
    found = chain.from_iterable(_entry_problems(task, output, entry) for entry in entries)
    return [*found, *_twice(task, entries), *_filter_problems(task)]


def group_problems(config: Mapping[str, Any], yaml: TaskYaml, of_tasks: Sequence[str]) -> Iterator[Problem]:
    """Problems with a group's own means; ``of_tasks`` has its tasks' metrics if all of them are known, else none."""
    for entry in as_list(config.get(AGGREGATE)):
        metric = entry.get("metric") if isinstance(entry, Mapping) else None
        if not isinstance(metric, str):
            yield yaml.problem(AGGREGATE, f"found {entry!r}", "a list, each item {metric: a name, …}")
            continue
        for key in sorted(set(entry) - {*OF_GROUP}, key=str):
            yield yaml.problem(AGGREGATE, f"unknown key {key!r}", f"one of {', '.join(OF_GROUP)}")
        aggregation = entry.get("aggregation", "mean")
        if aggregation != "mean" and not isinstance(aggregation, Function):
            yield yaml.problem(AGGREGATE, f"no aggregation {aggregation!r} of a group", "mean")
        if of_tasks and metric not in of_tasks:
            expected = f"one of {', '.join(dict.fromkeys(of_tasks))}"
            yield yaml.problem(AGGREGATE, f"none of its tasks has {metric}", expected, did_you_mean(metric, of_tasks))


def _entry_problems(task: SingleTask, output: str, entry: Any) -> Iterator[Problem]:
    metric = entry.get("metric") if isinstance(entry, Mapping) else None
    if metric is None or not isinstance(metric, str | Function):
        yield task.yaml.problem("metric_list", f"found {entry!r}", "a list, each item {metric: a name, …}")
        return
    better = entry.get("higher_is_better")
    if better is not None and not isinstance(better, bool):
        yield task.yaml.problem("metric_list", f"found higher_is_better: {better!r}", "true or false")
    aggregation = entry.get("aggregation")
    yield from _unknown_aggregation(task, aggregation)
    if task.config.get("process_results") is not None:
        return
    if isinstance(metric, Function) or (entry.get("hf_evaluate") and metric not in COMPUTED[output]):
        name = metric.name if isinstance(metric, Function) else metric
        if output != "generate_until":
            message, hint = f"{name} isn't computed of a task of {output}", "score it by process_results: !function …"
            yield task.yaml.problem("metric_list", message, f"one of {', '.join(COMPUTED[output])}", hint)
        return
    known = registered()[0]
    if known and metric not in known:
        of_ones_own = "or one of your own (process_results, !function), or evaluate's (hf_evaluate: true)"
        hint = did_you_mean(metric, known) or of_ones_own
        yield task.yaml.problem("metric_list", f"no metric {metric!r}", f"one of {', '.join(known)}", hint)
    elif metric not in COMPUTED[output] and known:
        if output == "generate_until" and isinstance(aggregation, Function):
            return  # lm-eval hands it the gold text and the answer.
        message = f"{metric} isn't computed of a task of {output}"
        yield task.yaml.problem("metric_list", message, f"one of {', '.join(COMPUTED[output])}")
    else:
        yield from _unfit_aggregation(task, output, metric, aggregation)


def _unknown_aggregation(task: SingleTask, aggregation: Any) -> Iterator[Problem]:
    known = registered()[1]
    if aggregation is None or isinstance(aggregation, Function) or not known or aggregation in known:
        return
    message, hint = f"no aggregation {aggregation!r}", did_you_mean(aggregation, known)
    yield task.yaml.problem("metric_list", message, f"one of {', '.join(known)}", hint)


def _unfit_aggregation(task: SingleTask, output: str, metric: str, aggregation: Any) -> Iterator[Problem]:
    """An aggregation that can't take the metric's values per item: it would fail only after all items were asked."""
    known = registered()[1]
    if isinstance(aggregation, Function) or (aggregation is not None and aggregation not in known):
        return
    fit = AGGREGATIONS.get(metric, _MEANS)
    if aggregation not in (None, *fit) or not fit:
        found = f"{metric} has no mean" if aggregation is None else f"{aggregation} can't be computed from {metric}"
        expected = f"one of {', '.join(fit)}" if fit else "an aggregation of your own, !function module.name"
        yield task.yaml.problem("metric_list", found, expected)
    choices = task.config.get("doc_to_choice")
    classes = len(choices) if output == "multiple_choice" and isinstance(choices, list | dict) else 0
    if (aggregation or metric) == "f1" and classes > TWO:
        message = f"f1 tells two classes apart, and there are {classes} choices"
        yield task.yaml.problem("metric_list", message, "mcc, acc, or an aggregation of your own")


def _twice(task: SingleTask, entries: Sequence[Any]) -> Iterator[Problem]:
    """A metric that is listed twice: lm-eval would use the second one's settings for both."""
    names = [str(entry.get("metric")) for entry in entries if isinstance(entry, Mapping)]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield task.yaml.problem("metric_list", f"{name} stands there twice", "each metric once")


def _filter_problems(task: SingleTask) -> Iterator[Problem]:
    pipelines = as_list(task.config.get("filter_list"))
    names = [one.get("name") for one in pipelines if isinstance(one, Mapping)]
    for one in pipelines:
        steps = one.get("filter") if isinstance(one, Mapping) else None
        if not isinstance(steps, list) or not steps or not isinstance(one.get("name"), str):
            expected = "a list, each item {name: a name, filter: [{function: take_first}, …]}"
            yield task.yaml.problem("filter_list", f"found {one!r:.80}", expected)
            continue
        if names.count(one["name"]) > 1:
            yield task.yaml.problem("filter_list", f"found the name {one['name']} twice", "each name once")
        for step in steps:
            yield from _step_problems(task, step)


def _step_problems(task: SingleTask, step: Any) -> Iterator[Problem]:
    function = step.get("function") if isinstance(step, Mapping) else None
    if isinstance(function, Function):
        return
    known, repeats = filters(), task.config.get("repeats") or 1
    if not isinstance(function, str):
        yield task.yaml.problem("filter_list", f"found {step!r:.80}", "{function: a filter's name, …}")
    elif known and function not in (*known, *_own_filters(task)):
        hint = did_you_mean(function, known)
        yield task.yaml.problem("filter_list", f"no filter {function!r}", f"one of {', '.join(known)}", hint)
    elif function in OF_ANSWERS and task.config.get("output_type", GENERATE) != GENERATE:
        message = f"{function} takes texts, and a task of {task.config['output_type']} writes none"
        yield task.yaml.problem("filter_list", message, "no filter, or output_type: generate_until")
    elif function == "take_first_k" and not isinstance(step.get("k"), int):
        yield task.yaml.problem("filter_list", "take_first_k has no k", "{function: take_first_k, k: a whole number}")
    elif function == "take_first_k" and step["k"] > int(repeats):
        message = f"take_first_k takes {step['k']} of {repeats} answers"
        yield task.yaml.problem("filter_list", message, f"repeats: {step['k']}")
    elif function == "custom" and not isinstance(step.get("filter_fn"), Function):
        yield task.yaml.problem("filter_list", "custom has no filter_fn", "filter_fn: !function module.name")
    else:
        yield from _pattern_problems(task, step)


def _pattern_problems(task: SingleTask, step: Mapping[str, Any]) -> Iterator[Problem]:
    group = step.get("group_select")
    if group is not None and (not isinstance(group, int) or isinstance(group, bool)):
        yield task.yaml.problem("filter_list", f"found group_select: {group!r}", "a whole number")
    if "regex_pattern" not in step:
        return
    try:
        re.compile(step["regex_pattern"])
    except (re.error, TypeError) as error:
        message = f"no regular expression: {step['regex_pattern']!r}: {error}"
        yield task.yaml.problem("filter_list", message, "one of Python's re")


def _own_filters(task: SingleTask) -> list[str]:
    files = sorted(task.yaml.path.parent.rglob("*.py"))
    return [name for file in files for name in _OWN_FILTER.findall(file.read_text(encoding="utf-8", errors="replace"))]
