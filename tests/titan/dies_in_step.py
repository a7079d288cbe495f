"""Trains a stage, and is killed by SIGKILL in the middle of a step: ``dies_in_step.py <run.yaml>``."""

import os
import signal
from collections.abc import Iterator
from typing import Any

from titan.train.train import main
from titan.train.trainer import Trainer

DIES_IN = "TEST_DIES_IN"
"""The environment variable with the step's number: that step changes the weights and logs its loss, and isn't saved."""
_whole_step = Trainer.train_step


def _step(trainer: Trainer, batches: Iterator[Any]) -> None:
    _whole_step(trainer, batches)
    if trainer.step == int(os.environ[DIES_IN]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Trainer.train_step = _step
    main()
