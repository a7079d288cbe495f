"""The size of a model that is trained from scratch: how many parameters, and which llama has about as many."""

from __future__ import annotations

import math
import re
from math import prod
from typing import Any

from titanflow.architectures.weights import model_weights
from titanflow.common.errors import ConfigError, Problem

FAMILY = "llama3"
FLAVOR = {"name": FAMILY, "flavor": "debugmodel"}
UNSCALED = {"rope_theta": 10000, "rope_scaling_args": {"scaling_factor": 1.0}}
"""Positions of a model whose rows are short."""
FLAVOR_ARGS = {"ffn_dim_multiplier": None, "n_kv_heads": None}
SMALLEST, LARGEST = 100_000, 1_000_000_000_000
"""Bounds of ``--size``."""
USUAL_ASPECT = 64
"""Width for each layer, about, of models of all sizes; others learn nearly as much (arXiv:2001.08361, figure 5)."""
_STEP, _WIDEST, _FEWEST = 64, 16384, 2
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def parse_size(text: str) -> int:
    """The parameters that ``--size`` asks for: 10M, 1.5B, 500k.

    Raises:
        ConfigError: it is no such number, or out of bounds.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMBT]?)", text.strip().upper())
    value = float(found[1]) * _UNITS[found[2]] if found else 0
    if not SMALLEST <= value <= LARGEST:
        raise ConfigError(Problem(f"found {text!r}", "--size", expected="parameters from 100k to 1T, as 10M or 1.5B"))
    return int(value)


def llama(parameters: int, vocab_size: int) -> dict[str, Any]:
    """The arguments of a llama of about so many parameters, of usual proportions where they allow it."""
    found = [_shape(dim, parameters, vocab_size) for dim in range(_STEP, _WIDEST + 1, _STEP)]
    return min(found, key=lambda args: _far(args, parameters))


def parameters_of(args: dict[str, Any]) -> int:
    shapes = model_weights(FAMILY, {**FLAVOR_ARGS, **args}) or {}
    return sum(map(prod, shapes.values()))


def _shape(dim: int, parameters: int, vocab_size: int) -> dict[str, Any]:
    width = 32 if dim <= 4 * _STEP else 64 if dim < 2048 or dim % 128 else 128
    args = {"dim": dim, "n_layers": 1, "n_heads": dim // width, "vocab_size": vocab_size, "multiple_of": _STEP}
    alone, layer = 2 * vocab_size * dim, 12 * dim * dim
    return {**args, "n_layers": max(_FEWEST, round((parameters - alone) / layer))}


def _far(args: dict[str, Any], parameters: int) -> float:
    """How far a model is from the asked size, and from usual proportions, which count a tenth."""
    # A layer has 12 dim², about: counting each shape of a thousand candidates would take seconds.
    dim, layers = args["dim"], args["n_layers"]
    size = 2 * args["vocab_size"] * dim + layers * 12 * dim * dim
    return abs(math.log(size / parameters)) + 0.1 * abs(math.log(dim / layers / USUAL_ASPECT))
