"""``titanflow_samples.json``: a published model's score on each sample, for the gate that the next model meets.

It holds no text: a sample is known by a hash of its document and its expected answer. The prompt isn't part of the
hash, as each model has a chat template of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from titanflow.files.own_files import readable
from titanflow.publish.gate.paired_bootstrap import AGGREGATIONS
from titanflow.publish.lineage import EvaluatedStage
from titanflow.runs.results import samples_file

KEY_DIGITS = 16
"""Hexadecimal digits of a sample's key: two of a million samples share one in a task of forty million."""
RECORD = ("doc_id", "doc_hash", "target_hash", "filter", "metrics")
"""The keys that are read from lm-eval's record of a sample, beside the metrics that it names; no texts."""
SETTINGS = (
    *("backend", "dtype", "chat", "system_instruction", "fewshot_as_multiturn", "gen_kwargs"),
    # Drawn with a temperature, an answer depends on the rest of its batch.
    "batch_size",
)
"""Keys of the evaluate module that change a score, beside those that its result records."""

Score = float | tuple[float, float]


class MetricSamples(BaseModel):
    """One metric: a number a sample, or a sum and its divisor (a text's log-likelihood and its bytes)."""

    aggregation: str
    higher_is_better: bool
    values: list[float] | list[tuple[float, float]]


class TaskSamples(BaseModel):
    """One task: the keys of its samples, and each metric's values in the same order."""

    version: str = ""
    n_shot: int = 0
    keys: list[str]
    metrics: dict[str, MetricSamples] = Field(default_factory=dict)


class Samples(BaseModel):
    """One model's scores by task, and the settings that they were taken with."""

    lm_eval: str = ""
    limit: float | None = None
    seeds: dict[str, int] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, TaskSamples] = Field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file: the same scores are always the same bytes."""
        content = self.model_dump()
        for task in content["tasks"].values():
            for metric in task["metrics"].values():
                metric["values"] = [compact(value) for value in metric["values"]]
        return (json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Samples | None:
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def compact(value: Score) -> int | float | list[int | float]:
    """Whole numbers without their decimal point, which halves a file of right and wrong answers."""
    if isinstance(value, tuple):
        return [int(part) if part.is_integer() else part for part in value]
    return int(value) if value.is_integer() else value


def read_samples(evaluation: EvaluatedStage) -> Samples | None:
    """The published model's score on each sample, from the files in the evaluation's folder; None if it left none.

    A metric is left out if its score can't be computed again from its samples, such as one that compares texts.
    """
    tasks, result, config = {}, evaluation.result, evaluation.run.config
    for task, scores in evaluation.scores.items():
        path = samples_file(evaluation.folder, evaluation.model, task)
        if path.is_file():
            tasks[task] = task_samples(lines(path), scores, result.higher_is_better.get(task, {}))
            tasks[task].version = result.task_versions.get(task, "")
            tasks[task].n_shot = result.n_shot.get(task, 0)
    if not tasks:
        return None
    return Samples(
        lm_eval=result.versions.get("lm_eval", ""),
        limit=result.limit,
        seeds=result.seeds,
        settings={key: config[key] for key in SETTINGS if key in config},
        tasks=tasks,
    )


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with (
        path.open(encoding="utf-8") as file,
        readable(path, f"remove the folder {path.parent}: the next run evaluates again"),
    ):
        for line in file:
            if line.strip():
                record = json.loads(line)
                yield {key: record[key] for key in (*RECORD, *record["metrics"]) if key in record}


def task_samples(
    records: Iterable[Mapping[str, Any]], scores: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> TaskSamples:
    """One task's samples from lm-eval's records, each of which is one sample through one filter.

    Metrics are named as in ``scores``: ``metric``, or ``metric,filter`` where it has several filters.
    """
    seen: dict[str, Counter[str]] = {}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record["doc_id"]):
        through = str(record.get("filter", "none"))
        key = sample_key(record, seen.setdefault(through, Counter()))
        for metric in record["metrics"]:
            found.setdefault((metric, through), {})[key] = record[metric]
    filters = Counter(metric for metric, _ in found)
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    task = TaskSamples(keys=keys)
    for (metric, through), values in found.items():
        name = metric if filters[metric] == 1 else f"{metric},{through}"
        numbers = [as_score(values.get(key)) for key in keys]
        if name in scores and metric in higher_is_better and (known := all_scores(numbers)):
            aggregation = aggregation_of(known, scores[name])
            if aggregation:
                task.metrics[name] = MetricSamples(
                    aggregation=aggregation, higher_is_better=higher_is_better[metric], values=known
                )
    return task


def sample_key(record: Mapping[str, Any], seen: Counter[str]) -> str:
    """A sample's key; repeats of a document within a task are numbered."""
    name = f"{record['doc_hash']} {record['target_hash']}"
    key = hashlib.sha256(name.encode()).hexdigest()[:KEY_DIGITS]
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


def as_score(value: Any) -> Score | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        total, weight = (as_score(part) for part in value)
        return (total, weight) if isinstance(total, float) and isinstance(weight, float) else None
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def all_scores(values: list[Score | None]) -> list[float] | list[tuple[float, float]]:
    """The values if all are of one kind, else none."""
    numbers = [value for value in values if isinstance(value, float)]
    sums = [value for value in values if isinstance(value, tuple)]
    if len(numbers) == len(values):
        return numbers
    return sums if len(sums) == len(values) else []


def aggregation_of(values: list[float] | list[tuple[float, float]], score: float) -> str:
    """The aggregation that gives the score from its samples' values; empty if none does."""
    table = as_array(values)
    # The exponential of values that aren't log-likelihoods may overflow.
    with np.errstate(all="ignore"):
        mean = table[:, 0].sum() / table[:, 1].sum()
        made = {name: float(aggregate(mean)) for name, aggregate in AGGREGATIONS.items()}
    return next((name for name, value in made.items() if math.isclose(value, score, rel_tol=1e-6, abs_tol=1e-9)), "")


def as_array(values: list[float] | list[tuple[float, float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values as ``[samples, 2]``: each score and its weight, 1 if it has none."""
    array = np.asarray(values, dtype=np.float64)
    return np.stack([array, np.ones_like(array)], axis=1) if array.ndim == 1 else array
