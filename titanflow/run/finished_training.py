"""A training that is done, read from its stage's folder."""

from __future__ import annotations

from pathlib import Path

import yaml

from titanflow.common.errors import DataError, Problem
from titanflow.run.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.run.results import TrainResult, result_of


def finished_training(folder: Path) -> tuple[StageRun, TrainResult]:
    """The ``run.yaml`` and the result of a training, also of a run that was moved or copied.

    Raises:
        DataError: the folder isn't a finished training stage's, or its files can't be read.
    """
    folder = folder.absolute()
    expected = "the folder of a finished pretrain or sft stage"
    try:
        result = result_of(folder)
        if not isinstance(result, TrainResult):
            raise DataError(Problem(f"no {RESULT_FILE} of a training", origin=str(folder), expected=expected))
        return StageRun.read(folder / RUN_FILE), result
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        found = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"{RUN_FILE} or {RESULT_FILE} can't be read: {found}"
        raise DataError(Problem(message, origin=str(folder), expected=expected)) from None
