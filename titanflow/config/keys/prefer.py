"""The keys of preference optimisation: the section ``prefer`` of a training module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Prefer:
    """Preference optimisation: the loss over pairs of a chosen and a rejected answer."""

    loss: Literal["dpo", "ipo"] = "dpo"
    """`dpo` (arXiv:2305.18290), or `ipo` (arXiv:2310.12036) on log-probabilities averaged over an answer's tokens."""
    beta: float = 0.1
    """How strongly the model is held to its base: a reward is β times the log-probability over the base's. For `ipo` it
    is the paper's τ."""
    label_smoothing: float = 0.0
    """The share of the pairs that are taken to be the wrong way round (`dpo` alone): from 0 to below 0.5."""
