"""What this machine can compute in the time that a first run should take."""

from __future__ import annotations

from dataclasses import dataclass

from titanflow.config.device import this_machine
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.duration import CORE_FLOPS, UTILISATION
from titanflow.planning.forecast.forecasts import device_of

UNKNOWN_PEAK = 1e14
"""Peak operations a second that are assumed of a GPU whose peak isn't known."""
PRETRAIN = {"cpu": 180, "cuda": 3600}
SFT = {"cpu": 120, "cuda": 1200}
"""Seconds that a first training should take: a few minutes on a CPU, an hour on GPUs."""
TOKENS_A_PARAMETER = {"cpu": 3, "cuda": 20}
"""Trained tokens for each parameter. 20 make the best use of a GPU's time (arXiv:2203.15556). In a CPU's few minutes a
model of more parameters and fewer tokens learns more: so does the default experiment's, whose size was tried."""


@dataclass(frozen=True)
class Machine:
    """The devices here: ``count`` GPUs of one kind, or the CPU."""

    device: DeviceSpec
    count: int = 1

    @classmethod
    def here(cls) -> Machine:
        device = device_of({})
        return cls(device, (this_machine().count or 1) if device.kind == "cuda" else 1)

    @property
    def is_gpu(self) -> bool:
        return self.device.kind == "cuda"

    @property
    def flops(self) -> float:
        """Operations a second that a training reaches."""
        if not self.is_gpu:
            return CORE_FLOPS * max(1, self.device.cores)
        return UTILISATION * (self.device.peak_flops or UNKNOWN_PEAK) * self.count

    @property
    def longest_row(self) -> int:
        """The longest row that a first run should have, in tokens, where most conversations are no longer."""
        return 4096 if self.is_gpu else 512

    @property
    def first_row(self) -> int:
        """The tokens of a row of text that a first model from scratch can use."""
        return 1024 if self.is_gpu else 128

    def __str__(self) -> str:
        return f"{self.count} × {self.device.name}" if self.count > 1 else self.device.name
