"""The part of lm-eval's results that is kept: scores by metric, each item's answer, some answers side by side."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from titanflow.common.files import write_text_atomically
from titanflow.runs.results import samples_file

logger = logging.getLogger("titanflow.evaluate")


def metric_scores(task_results: Mapping[str, Any]) -> dict[str, float]:
    """One task's finite scores by metric, the standard error as ``metric_stderr``.

    lm-eval's keys are ``metric,filter``. The filter stays only where a metric has several
    (``exact_match,strict-match`` and ``exact_match_stderr,strict-match``).
    """
    split = [(*key.rsplit(",", 1), value) for key, value in task_results.items() if "," in key]
    filters: dict[str, set[str]] = {}
    for metric, filter_name, _ in split:
        filters.setdefault(metric, set()).add(filter_name)
    scores = {}
    for metric, filter_name, value in split:
        try:
            number = float(value)
        except (TypeError, ValueError):
            # "N/A": a standard error without a closed form that was not resampled.
            continue
        if math.isfinite(number):
            scores[metric if len(filters[metric]) == 1 else f"{metric},{filter_name}"] = number
    return scores


def merge_results(collected: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    """Merges the results of one model's tasks in lm-eval's format, without samples."""
    merged: dict[str, Any] = {"config": dict(config)}
    for results in collected:
        for section, content in results.items():
            if section != "samples" and isinstance(content, Mapping):
                merged.setdefault(section, {}).update(content)
    return merged


def write_samples(folder: Path, model: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes ``samples_<model>_<task>.jsonl``, one item a line: prompt, answer, scores and hashes."""
    for task, items in samples.items():
        lines = [as_json(item) for item in sorted(items, key=lambda item: item["doc_id"])]
        write_text_atomically(samples_file(folder, model, task), "\n".join(lines) + "\n")


def write_results(folder: Path, model: str, results: Mapping[str, Any]) -> None:
    write_text_atomically(folder / f"results_{model}.json", as_json(results, indent=2) + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON, including numpy's numbers and other types in lm-eval's records."""
    from lm_eval.utils import handle_non_serializable

    return json.dumps(value, default=handle_non_serializable, ensure_ascii=False, indent=indent)


def answers(task: Any, samples: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, str]]:
    """Question, expected and given answer by item id; empty for tasks without answers, or if reading them fails."""
    show = {"generate_until": _written, "multiple_choice": _chosen}.get(task.OUTPUT_TYPE)
    if show is None:
        return {}
    try:
        return {
            sample["doc_id"]: {key: str(text).strip() for key, text in show(task, sample).items()} for sample in samples
        }
    except Exception as error:  # A task's own functions may raise anything; the answers are only for show.
        logger.warning("%s: its answers can't be shown: %s: %s", task.config.task, type(error).__name__, error)
        return {}


def _written(task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    question = task.doc_to_text(sample["doc"])
    return {"question": question, "expected": sample["target"], "answer": sample["filtered_resps"][0]}


def _chosen(task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    choices = task.doc_to_choice(sample["doc"])
    # For acc_mutual_info each choice is also scored without the question, after the others.
    likelihoods = [response[0] for response in sample["filtered_resps"][: len(choices)]]
    question, gold = task.doc_to_text(sample["doc"]), sample["target"]
    if isinstance(question, int):
        # As in winogrande: the choices are beginnings of one continuation, and the text is the number of the right one.
        question, gold = f"… {str(gold).strip()}", question
    right = [choices[one] if isinstance(one, int) else one for one in (gold if isinstance(gold, list) else [gold])]
    expected = " / ".join(map(str, right))
    return {"question": question, "expected": expected, "answer": choices[likelihoods.index(max(likelihoods))]}


def side_by_side(
    given: Mapping[str, Mapping[str, Mapping[int, Mapping[str, str]]]], count: int
) -> list[dict[str, str]]:
    """At most ``count`` questions with every model's answer, spread over tasks and items.

    ``given`` is model → task → item → :func:`answers`.
    """
    models = list(given)
    shown: list[dict[str, str]] = []
    tasks = [task for task in given[models[0]] if given[models[0]][task]] if models else []
    for position, task in enumerate(tasks):
        items = sorted(set.intersection(*(set(given[model].get(task, {})) for model in models)))
        share = min(len(items), math.ceil((count - len(shown)) / (len(tasks) - position)))
        for item in (items[index * len(items) // share] for index in range(share)):
            first = given[models[0]][task][item]
            shown.append(
                {
                    "task": task,
                    "question": first["question"],
                    "expected": first["expected"],
                    **{model: given[model][task][item]["answer"] for model in models},
                }
            )
    return shown
