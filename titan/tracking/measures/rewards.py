"""The rewards of preference optimisation: beta times an answer's log-probability over the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titan.tracking.metrics import StageMetrics

METRICS = {
    "chosen": ("nats", "mean reward of the chosen answers: beta times their log-probability over the base's"),
    "rejected": ("nats", "the same of the rejected answers"),
    "margins": ("nats", "mean of the chosen answer's reward minus the rejected one's"),
    "accuracies": ("fraction", "pairs whose chosen answer has the higher reward"),
}


def measure(stage: StageMetrics) -> dict[str, float]:
    return stage.pairs("rewards")
