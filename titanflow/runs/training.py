"""A training stage as its folder holds it, read once and handed on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.results import TrainResult, result_of


@dataclass(frozen=True)
class Training:
    """A training stage: what it was asked to do and, once it has finished, what it made.

    Its files are read when they are first asked for, also in a run that was moved or copied.

    Raises:
        DataError: a file can't be read.
    """

    run: StageRun

    @classmethod
    def of(cls, folder: Path) -> Training | None:
        """The training in a folder; None if the folder is no training stage's."""
        run = StageRun.of(folder)
        return cls(run) if run is not None and run.trains else None

    @cached_property
    def result(self) -> TrainResult | None:
        """None before the stage has finished."""
        result = result_of(self.run.folder)
        return result if isinstance(result, TrainResult) else None

    @cached_property
    def base(self) -> Training | None:
        """The stage that this one began from; None without one, or if its base is a model in transformers' format."""
        return Training.of(self.run.base) if self.run.base else None


def read_training(folder: Path) -> Training:
    """The training in a folder, finished or not.

    Raises:
        DataError: the folder is no training stage's, or its files can't be read.
    """
    if (training := Training.of(folder)) is None:
        expected = "the folder of a training stage"
        raise DataError(Problem(f"no {RUN_FILE} of a training", origin=str(folder), expected=expected))
    return training


def finished_training(folder: Path) -> tuple[StageRun, TrainResult]:
    """A finished training's run file and result.

    Raises:
        DataError: the folder isn't a finished training stage's, or its files can't be read.
    """
    training = read_training(folder.absolute())
    if training.result is None:
        found, expected = f"no {RESULT_FILE} of a training", "the folder of a finished training stage"
        raise DataError(Problem(found, origin=str(training.run.folder), expected=expected))
    return training.run, training.result
