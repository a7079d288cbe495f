"""The log-probabilities of preference optimisation's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titan.tracking.metrics import StageMetrics

METRICS = {
    "chosen": ("nats", "mean log-probability of the chosen answers, summed over their trained tokens"),
    "rejected": ("nats", "the same of the rejected answers"),
    "kl": (
        "nats",
        "mean of all answers' log-probability over the base's: how far the model moved; may be below 0",
    ),
}


def measure(stage: StageMetrics) -> dict[str, float]:
    return stage.pairs("logps")
