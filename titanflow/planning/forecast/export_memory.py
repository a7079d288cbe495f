"""The memory of an export: one process of the first node, after the training, on its CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.architectures.blocks import Args
from titanflow.architectures.families.registry import export_refusal

LIBRARIES = 660 << 20
"""Bytes of a process that exports a model of a few numbers: Python, torch and transformers. Measured (torch 2.13)."""
MODELS = 2
"""The trained model and the exported one, both in fp32. They lie in mapped files: the kernel may take their pages back,
but Slurm, where it polls a job's memory, counts them. Measured: 2.2 for 43 M and 160 M parameters."""
ROWS, POSITIONS, LOGITS = 2, 512, 4
"""Rows and positions that both models are compared on, and how many logits of each are there at once: the two models',
their difference, and its size. Measured with a vocabulary of 131,072."""


def export_memory(config: Mapping[str, Any], family: str, args: Args, parameters: int) -> int | None:
    """Bytes that the export of a module's model takes, as far as they count against a job; None without one."""
    if export_refusal(family, dict(args)):
        return None
    positions = min(POSITIONS, int(config["training"]["seq_len"]))
    logits = LOGITS * ROWS * positions * int(args["vocab_size"])
    return LIBRARIES + 4 * (MODELS * parameters + logits)
