"""The keys of the optimizer beside torchtitan's own; the string below a field is its documentation."""

# Types are no strings here: torchtitan merges the fields into a class of its own, whose module has no Literal.
from dataclasses import dataclass, field
from typing import Literal

MUON = "Muon"
"""The ``optimizer.name`` that torchtitan doesn't have."""


@dataclass
class OptimizerAdditions:
    """This project's keys inside torchtitan's own ``optimizer`` section."""

    group_lr: dict[str, float] = field(default_factory=dict)
    """Learning rates of a routed model's groups of parameters, {router: 1e-2, prior: 1e-3}; all else has `lr`. The
    schedule and the other settings are the same for all."""
    muon_lr: float | None = None
    """Learning rate of the layers' matrices with `name: Muon`; unset, `lr`, which all else has. The schedule is the
    same for both."""
    muon_momentum: float = 0.95
    """Share of Muon's momentum that is kept at a step."""
    muon_nesterov: bool = True
    """Whether Muon looks one step ahead (Nesterov's momentum)."""
    muon_ns_steps: int = 5
    """Steps of Newton–Schulz that make Muon's update orthogonal, from 1 to 99."""
    muon_adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How Muon's rate follows a matrix's shape: times 0.2·√max(rows, columns), so that updates are as large as AdamW's
    and AdamW's rate fits (Moonlight, arXiv:2502.16982), or times √max(1, rows / columns) (`original`)."""
