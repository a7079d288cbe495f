"""An evaluation's scores in Weights & Biases."""

from __future__ import annotations

import logging

from titan.tracking.metric_names import named_scores
from titan.tracking.wandb_lineage import evaluated_artifacts
from titan.tracking.wandb_run import end_run, link_artifacts, open_run
from titanflow.runs.contract import StageRun
from titanflow.runs.results import EvaluateResult, WandbRecord
from titanflow.runs.wandb_record import WANDB_FILE, wandb_mode

logger = logging.getLogger("titanflow.evaluate")


def log_to_wandb(run: StageRun, result: EvaluateResult) -> WandbRecord:
    """Logs one row of ``eval/<model>/<task>/<metric>`` to a W&B run of its own.

    ``WANDB_*`` set mode (offline by default), project and account. A failure is only logged, lest computed scores be
    lost; the record then has no id.
    """
    models = evaluated_artifacts(result)
    unlogged = WandbRecord(mode=wandb_mode(), used=models)
    if unlogged.mode == "disabled":
        return unlogged
    # A repeated evaluation is a new W&B run.
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
