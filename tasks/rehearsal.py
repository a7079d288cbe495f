"""Tries an evaluation before anything is trained, in another process: this one has neither torch nor lm-eval."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from tasks.process.launch import launch
from titanflow.planning.begin import set_aside
from titanflow.planning.evaluation.rehearsal import FOLDER, MODULE, Rehearsal
from titanflow.planning.launch import STAGE_FOLDER
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import RESULT_FILE


def rehearse(plan: Plan, tell: Callable[[str], object]) -> None:
    """Fails a run early whose evaluation would fail after the training; a successful try isn't repeated.

    An evaluation in another work pool isn't tried: this machine may lack what it finds there.

    Raises:
        ConfigError: lm-eval can't run a task.
        DataError: items stand in the training data, where that is an error.
        StageFailed: the process failed otherwise.
    """
    evaluate = plan.of_kind("evaluate")
    if evaluate is None or evaluate.state == "CACHED" or evaluate.pool:
        return
    folder = plan.folder / FOLDER
    asked = Rehearsal(evaluate=evaluate.run, trained=[stage.run for stage in plan.stages if stage.run.trains])
    if asked.is_done(folder):
        return
    tell("trying the evaluation's tasks")
    if (folder / RESULT_FILE).exists():
        shutil.rmtree(folder)
    elif folder.exists():
        # Its log says why it failed.
        set_aside(folder)
    environment = {**evaluate.env, STAGE_FOLDER: str(folder)}
    launch(FOLDER, folder, [sys.executable, "-m", MODULE, str(asked.write(folder))], environment)
