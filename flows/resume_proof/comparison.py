"""Whether a run that was killed repeatedly has the results of the uninterrupted one.

Two runs of one experiment are compared by what their stages left behind. On the same number of ranks everything is
equal to the bit. On another number a step is summed in another order, and losses agree within a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titanflow.common.digests import file_digest
from titanflow.publish.bundle import CARD, LINEAGE
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import BATCHES_FILE, EVALUATIONS_FILE, read_metrics
from titanflow.runs.results import EvaluateResult, PublishResult, TrainResult, read_result

OF_THE_MACHINE = {"seconds", "tokens_per_second", "trained_tokens_per_second", "mfu", "system"}
"""Values of a record that describe the machine, not the training."""
ROUNDED = {"loss", "perplexity", "grad_norm", "validation_loss", "validation_perplexity"}
"""Values that depend on the order in which the ranks' parts are summed."""
DATED = (CARD, LINEAGE)
"""Files of a published model that say when and in which runs it was made."""

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""The value of each metric of each task of each model, or of a training's checkpoint."""


@dataclass(frozen=True)
class Check:
    """One comparison; ``found`` says what was equal, or the first difference."""

    name: str
    passed: bool
    found: str


def compare(uninterrupted: Path, killed: Path, tolerance: float = 0.0) -> list[Check]:
    """Compares the folders of two finished runs.

    ``tolerance`` is the relative difference up to which losses and norms count as equal. Only if it is 0, weights,
    scores and published files are compared, too.
    """
    checks: list[Check] = []
    for stage in Manifest.open(uninterrupted).stages:
        if not (uninterrupted / stage / RESULT_FILE).exists():
            continue
        if not (killed / stage / RESULT_FILE).exists():
            checks.append(Check(stage, False, "the killed run has no result"))
            continue
        right, found = read_result(uninterrupted / stage), read_result(killed / stage)
        if isinstance(right, TrainResult) and isinstance(found, TrainResult):
            checks += compare_metrics(stage, uninterrupted / stage, killed / stage, tolerance)
            checks.append(compare_batches(stage, uninterrupted / stage, killed / stage))
            if not tolerance:
                checks += _compare_weights(stage, right, found)
                checks += _compare_evaluations(stage, uninterrupted / stage, killed / stage)
        elif isinstance(right, EvaluateResult) and isinstance(found, EvaluateResult) and not tolerance:
            checks.append(_same(f"{stage}: scores", dict(_scores(right.scores)), dict(_scores(found.scores)), "scores"))
        elif isinstance(right, PublishResult) and isinstance(found, PublishResult) and not tolerance:
            checks.append(_same(f"{stage}: files", _undated(right.files), _undated(found.files), "files"))
    return checks


def compare_metrics(stage: str, right: Path, found: Path, tolerance: float = 0.0) -> list[Check]:
    """Compares the records of two folders of a training stage: their steps, and every number of each."""
    before, after = (read_metrics(folder / METRICS_FILE) for folder in (right, found))
    steps, others = ([_step(record) for record in records] for records in (before, after))
    if steps != others:
        return [Check(f"{stage}: steps", False, _first_difference(steps, others))]
    checks = [Check(f"{stage}: steps", True, f"{len(set(steps))} records, none missing, none twice")]
    if len(set(steps)) != len(steps):
        checks = [Check(f"{stage}: steps", False, "a step is recorded twice")]
    for name, keys in (("losses", ROUNDED), ("the rest", None)):
        compared, widest, wrong = 0, 0.0, ""
        for one, other in zip(before, after, strict=True):
            wanted = keys if keys is not None else (one.keys() | other.keys()) - OF_THE_MACHINE - ROUNDED
            for key in sorted(wanted & (one.keys() | other.keys())):
                compared += 1
                difference = _difference(one.get(key), other.get(key))
                widest = max(widest, difference)
                if difference > (tolerance if key in ROUNDED or key == "router" else 0.0):
                    wrong = wrong or f"step {one['step']}: {key} {one.get(key)} → {other.get(key)}"
        if compared:
            equal = f"at most {widest:.1e} apart" if tolerance and name == "losses" else "equal"
            checks.append(Check(f"{stage}: {name}", not wrong, wrong or f"{compared} values {equal}"))
    return checks


def compare_batches(stage: str, right: Path, found: Path) -> Check:
    """Compares the rows of each step; a run without a record of them, which no proof started, differs."""
    rows = _batches(right)
    if not rows:
        told = f"unknown: {right.parent} was trained without a record of its batches; remove it and prove again"
        return Check(f"{stage}: data", False, told)
    return _same(f"{stage}: data", rows, _batches(found), "batches")


def _batches(folder: Path) -> dict[str, str]:
    return {f"step {record['step']}": record["batch"] for record in read_metrics(folder / BATCHES_FILE)}


def _step(record: dict[str, Any]) -> tuple[int, str]:
    return record["step"], "validation" if "validation_loss" in record else "training"


def _first_difference(right: list[Any], found: list[Any]) -> str:
    for one, other in zip(right, found, strict=False):
        if one != other:
            return f"{other[1]} step {other[0]} where {one[1]} step {one[0]} was"
    return f"{len(found)} records where {len(right)} were"


def _difference(one: Any, other: Any) -> float:
    """The distance of two values relative to the first; infinite if they aren't numbers."""
    if one == other:
        return 0.0
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) and math.isnan(other):
            return 0.0
        return abs(one - other) / abs(one) if one else math.inf
    return math.inf


def _compare_weights(stage: str, right: TrainResult, found: TrainResult) -> Iterator[Check]:
    yield _same(f"{stage}: checkpoint", _tensors(right.checkpoint), _tensors(found.checkpoint), "files of state")
    if right.export_digests:
        yield _same(f"{stage}: export", right.export_digests, found.export_digests, "files")


def _tensors(checkpoint: Path) -> dict[str, str]:
    """Weights, moments, schedule and data position, without the metadata, which each save numbers anew."""
    return {path.name: file_digest(path) for path in sorted(checkpoint.glob("*.distcp"))}


def _compare_evaluations(stage: str, right: Path, found: Path) -> Iterator[Check]:
    """Compares the scores of the checkpoints that both runs scored: retention may remove one before it is held."""
    whole, other = (_scored_steps(folder) for folder in (right, found))
    if whole:
        one, two = (dict(_scores({step: of[step] for step in whole.keys() & other.keys()})) for of in (whole, other))
        yield _same(f"{stage}: scores on the way", one, two, "scores")


def _scored_steps(folder: Path) -> Scores:
    """The scores of a training's checkpoints, by ``step N``, task and metric."""
    records = read_metrics(folder / EVALUATIONS_FILE)
    return {f"step {record['step']}": record["scores"] for record in records if "scores" in record}


def _scores(found: Scores) -> Iterator[tuple[str, float]]:
    for model, tasks in found.items():
        for task, metrics in tasks.items():
            for metric, value in metrics.items():
                yield f"{model} {task} {metric}", value


def _undated(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name not in DATED}


def _same(name: str, right: dict[str, Any], found: dict[str, Any], what: str) -> Check:
    wrong = [key for key in sorted(right.keys() | found.keys()) if _difference(right.get(key), found.get(key)) > 0]
    if wrong:
        shown = f"{wrong[0]}: {right.get(wrong[0])} → {found.get(wrong[0])}"
        return Check(name, False, f"{len(wrong)} of {len(right)} {what} differ: {shown}")
    return Check(name, True, f"{len(right)} {what} equal")
