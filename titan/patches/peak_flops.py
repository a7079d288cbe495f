"""Keeps torchtitan from relating the model FLOPS utilisation to a GPU that isn't there."""

from __future__ import annotations

import functools
import logging
import math

from titan.patches.patch import Patch, PatchContext

A100_PEAK = 312e12
"""Peak bf16 FLOPS of an A100, which torchtitan uses for unknown devices."""
PROBE = "a processor that nobody built"


def needed() -> bool:
    from torchtitan.tools import utils

    upstream = getattr(utils.get_peak_flops, "__wrapped__", utils.get_peak_flops)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        return bool(upstream(PROBE) == A100_PEAK)
    finally:
        root.setLevel(level)


def known_peak(device_name: str, peak: float) -> float:
    """``peak``, or NaN if it is the A100's and the device is another."""
    return math.nan if peak == A100_PEAK and "A100" not in device_name else peak


def apply(context: PatchContext) -> None:
    from torchtitan.tools import utils

    upstream = utils.get_peak_flops
    if hasattr(upstream, "__wrapped__"):
        return

    @functools.wraps(upstream)
    def get_peak_flops(device_name: str) -> float:
        if utils.device_type == "cpu":
            return math.nan
        return known_peak(device_name, upstream(device_name))

    utils.get_peak_flops = get_peak_flops
    logging.getLogger().addFilter(_drops_unknown_peak)


def _drops_unknown_peak(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not (message.startswith("Peak FLOPS used for computing MFU") and message.endswith("nan"))


PATCH = Patch(
    name="peak_flops",
    target="torchtitan.tools.utils.get_peak_flops",
    what="NaN for a CPU and for every device that torchtitan doesn't know; no MFU is shown then",
    why="an unknown device counts as an A100, so that the MFU of a CPU is a fiction",
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
