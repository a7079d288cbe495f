"""How long a training takes: by measurements of the same work, or else by what its device can compute."""

from __future__ import annotations

from dataclasses import dataclass

from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.flops import Counts
from titanflow.planning.forecast.history import Measured
from titanflow.planning.forecast.layout import Layout

UTILISATION = 0.4
"""Assumed share of a GPU's peak that a training reaches (model FLOPS utilisation): well-tuned decoders report between a
third and a half (PaLM, arXiv:2204.02311, table 3). Not measured here."""
CORE_FLOPS = 7e10
"""Operations a second of one CPU core in fp32, measured with the default experiment's pretraining on two cores. Other
processors, models and types may be several times faster or slower."""
START_UP = 10.0
"""Seconds of a training stage beside its steps, for start and export; measured with a tiny model."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage from start to end and of a step, the tokens that it trains in all and a second, and the source
    of these."""

    seconds: float
    seconds_per_step: float
    tokens: int
    tokens_per_second: float
    source: str


def measured_duration(found: Measured, steps: int, tokens: int) -> Duration:
    """The time of ``steps`` at a measured speed, and the measured time around them.

    Conversations may be shorter than ``seq_len``, so a step's tokens are measured, too; ``tokens`` is their maximum.
    """
    around = START_UP if found.around is None else found.around
    seen = round(steps * found.tokens_per_step) if found.tokens_per_step else tokens
    seconds = steps * found.seconds_per_step + around
    return Duration(
        seconds, found.seconds_per_step, min(seen, tokens), found.tokens_per_second, f"measured on {found.run}"
    )


def estimated(counts: Counts, tokens: int, layout: Layout, device: DeviceSpec, ns_steps: int = 0) -> Duration | None:
    """The time by a device's speed; None if the speed isn't known. ``ns_steps`` are Muon's, 0 for another optimizer."""
    per_step = counts.flops_per_token * layout.tokens_per_step + ns_steps * counts.matrices.flops * layout.repeats
    per_token = per_step / layout.tokens_per_step
    work = per_token * tokens
    if device.kind == "cpu":
        # Ranks on a CPU share its cores.
        speed, source = CORE_FLOPS * max(1, device.cores), "rough: no such stage was measured"
    elif device.peak_flops is None or layout.compute_bytes != 2:
        return None
    else:
        speed, source = UTILISATION * device.peak_flops * layout.processes, f"from peak FLOPs at {UTILISATION:.0%}"
    rate = speed / per_token
    return Duration(work / speed + START_UP, layout.tokens_per_step / rate, tokens, rate, source)
