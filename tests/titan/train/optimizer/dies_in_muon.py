"""Trains a stage by Muon, and is killed by SIGKILL within a step: ``dies_in_muon.py <run.yaml>``."""

import os
import signal
from typing import Any

from titan.train.optimizer.muon import MuonWithAdamW
from titan.train.train import main

DIES_IN = "TEST_DIES_IN"
"""The environment variable with the step's number, which steps the matrices, and nothing else."""
_all_matrices, _steps = MuonWithAdamW._step_matrices, iter(range(1, 1000))


def _step_matrices(optimizer: MuonWithAdamW, group: dict[str, Any]) -> None:
    _all_matrices(optimizer, group)
    if next(_steps) == int(os.environ[DIES_IN]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    MuonWithAdamW._step_matrices = _step_matrices
    main()
