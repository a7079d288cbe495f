"""Keeps transformers from importing what no language model computes with."""

from __future__ import annotations

import importlib
import sys

LOSSES = "transformers.loss.loss_utils"


def leave_out_scipy() -> None:
    """Imports transformers' losses without scipy, by which it matches boxes to detected objects.

    Each of its models imports these losses, and scipy's optimizers take longer to import than a small model to load.
    """
    if LOSSES in sys.modules:
        return
    from transformers import utils

    is_there = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        importlib.import_module(LOSSES)
    finally:
        utils.is_scipy_available = is_there
