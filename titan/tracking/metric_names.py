"""The names of a stage's metrics in W&B and TensorBoard, and each one's key in ``metrics.jsonl``.

There are no others: loggers get what :func:`named` makes of a record, so that a history can be rewritten from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from titan.tracking.measures.registry import MEASURES

AXIS = "tokens"
"""The axis of all other names: input tokens of all ranks from the run's start through this step."""
SECTIONS = ("train", "val", "router", *MEASURES)
"""The sections of a training stage's names, over :data:`AXIS`; an evaluation's only section is ``eval``."""


@dataclass(frozen=True)
class Metric:
    """A name, its key in the record (below ``within``, if set), its unit and its meaning."""

    name: str
    key: str
    unit: str
    meaning: str
    within: str = ""


TRAINING = (
    Metric(AXIS, "tokens", "tokens", "input tokens up to and with this step, of all ranks: the axis of all others"),
    Metric("train/loss", "loss", "nats/token", "this step's loss summed over all trained tokens, by their number"),
    Metric("train/perplexity", "perplexity", "–", "exp(min(train/loss, 20))"),
    Metric("train/max_loss", "max_loss", "nats/token", "the highest mean loss of a rank that trained a token"),
    Metric("train/learning_rate", "learning_rate", "–", "what the scheduler gave this step"),
    Metric("train/grad_norm", "grad_norm", "–", "2-norm of all gradients, before clipping"),
    Metric("train/tokens_per_second", "tokens_per_second", "tokens/s", "input tokens since the last record, by time"),
    Metric(
        "train/trained_tokens_per_second",
        "trained_tokens_per_second",
        "tokens/s",
        "the same of tokens that are trained, where not all are",
    ),
    Metric("train/mfu", "mfu", "%", "model FLOPs by the device's peak; not where the peak isn't known, as on a CPU"),
    Metric("train/share/<source>", "*", "fraction", "of a mixture: the source's share of the tokens so far", "shares"),
    Metric("val/loss", "validation_loss", "nats/token", "loss over all held-out tokens with a label, by their number"),
    Metric("val/perplexity", "validation_perplexity", "–", "exp(min(val/loss, 20))"),
    Metric("router/<statistic>", "*", "–", "of a routed model: mean over layers, ranks and microbatches", "router"),
    Metric("router/layer_<i>/<statistic>", "*", "–", "the same of one layer", "router"),
    *(
        Metric(f"{section}/{key}", key, unit, meaning, section)
        for section, file in MEASURES.items()
        for key, (unit, meaning) in file.METRICS.items()
    ),
)

_GROUPS = {"shares": "train/share", "router": "router", **{section: section for section in MEASURES}}
_SCALARS = {metric.key: metric.name for metric in TRAINING if not metric.within}


def named(record: Mapping[str, Any]) -> dict[str, float]:
    """A training stage's record under the loggers' names."""
    values = {name: record[key] for key, name in _SCALARS.items() if key in record}
    for key, prefix in _GROUPS.items():
        values |= {f"{prefix}/{name}": value for name, value in record.get(key, {}).items()}
    return values


def rows(records: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The loggers' row of each step; a validation is in the row of its step."""
    merged: dict[int, dict[str, float]] = {}
    for record in records:
        merged.setdefault(record["step"], {}).update(named(record))
    return merged


def named_scores(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """An evaluation's ``scores[model][task][metric]`` under the loggers' names."""
    return {
        f"eval/{model}/{task}/{metric}": value
        for model, tasks in scores.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }
