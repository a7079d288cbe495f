"""Tries evaluations before anything is trained, in another process: this one has neither torch nor lm-eval."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from tasks.process.launch import launch
from titanflow.planning.begin import set_aside
from titanflow.planning.evaluation.rehearsal import FOLDER, MODULE, Rehearsal
from titanflow.planning.launch import STAGE_FOLDER
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import DURING_FOLDER, RESULT_FILE


def rehearse(plan: Plan, tell: Callable[[str], object]) -> None:
    """Fails a run early whose evaluations would fail after a training or beside it; a successful try isn't repeated.

    An evaluation in another work pool isn't tried: this machine may lack what it finds there.

    Raises:
        ConfigError: lm-eval can't run a task.
        DataError: items stand in the training data, where that is an error.
        StageFailed: the process failed otherwise.
    """
    todo = [stage for stage in plan.stages if stage.state != "CACHED" and not stage.pool]
    runs = {stage.stage: stage.run for stage in todo if stage.kind == "evaluate"}
    runs |= {f"{stage.stage}.{DURING_FOLDER}": stage.during for stage in todo if stage.during is not None}
    folder = plan.folder / FOLDER
    asked = Rehearsal(evaluations=runs, trained=[stage.run for stage in plan.stages if stage.run.trains])
    if not runs or asked.is_done(folder):
        return
    tell(f"trying the tasks of {', '.join(runs)}")
    if (folder / RESULT_FILE).exists():
        shutil.rmtree(folder)
    elif folder.exists():
        # Its log says why it failed.
        set_aside(folder)
    first = next(stage for stage in todo if stage.kind == "evaluate" or stage.during is not None)
    environment = {**first.env, STAGE_FOLDER: str(folder)}
    launch(FOLDER, folder, [sys.executable, "-m", MODULE, str(asked.write(folder))], environment)
