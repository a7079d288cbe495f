"""An evaluation's scores in Weights & Biases."""

from __future__ import annotations

import logging

from titan.tracking.metric_names import named_scores
from titan.tracking.wandb_lineage import evaluated_artifacts
from titan.tracking.wandb_run import end_run, link_artifacts, open_run
from titanflow.run.contract import StageRun
from titanflow.run.results import EvaluateResult, WandbRecord
from titanflow.run.wandb_record import WANDB_FILE, wandb_mode

logger = logging.getLogger("titanflow.evaluate")


def log_to_wandb(run: StageRun, result: EvaluateResult) -> WandbRecord:
    """Logs ``eval/<model>/<task>/<metric>``, one row, to a W&B run of its own; a record without id where that failed.

    Mode, project and account come from ``WANDB_*``, offline unless they say otherwise. Scores that are computed are
    never lost to a logger.
    """
    models = evaluated_artifacts(result)
    unlogged = WandbRecord(mode=wandb_mode(), used=models)
    if unlogged.mode == "disabled":
        return unlogged
    # An evaluation begins anew each time: what it said before is another run.
    (run.folder / WANDB_FILE).unlink(missing_ok=True)
    try:
        opened, record = open_run(run)
        opened.log(named_scores(result.scores))
        record.used = [*record.used, *models]
        link_artifacts(opened, record)
        end_run(opened)
    except Exception as error:
        logger.warning("the scores aren't in W&B: %s", error)
        return unlogged
    return record
