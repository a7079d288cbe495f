"""The arguments of a TDTF model."""

from __future__ import annotations

from dataclasses import dataclass

from titan.models.dynamic.args import SurpriseModelArgs


@dataclass
class TdtfModelArgs(SurpriseModelArgs):
    """A Qwen2.5 whose every second layer computes what a teacher finds surprising (arXiv:2511.21408)."""

    tpn_loss_weight: float = 0.05
    """Weight of the transition network's squared error in predicting a layer's change."""
    beta_start: float = 0.3
    """How sharply surprising tokens are told from others at the first step."""
    beta_end: float = 6.0
    """The same at the last step; in between it follows a cosine."""
    beta_warmup_steps: int = 1000
    """Steps before the sharpness begins to change; a stage with no more steps keeps ``beta_start``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_layers < 2:
            raise ValueError(f"n_layers={self.n_layers}, expected 2 or more: the second of each two is routed")
        for name in ("beta_start", "beta_end"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}, expected above 0")
        if self.beta_warmup_steps < 0:
            raise ValueError(f"beta_warmup_steps={self.beta_warmup_steps}, expected 0 or more")
