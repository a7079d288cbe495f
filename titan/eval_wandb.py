"""An evaluation's scores in Weights & Biases."""

from __future__ import annotations

import logging
import os

from titanflow.stage import EvaluateResult, StageRun

logger = logging.getLogger("titanflow.evaluate")


def log_to_wandb(run: StageRun, result: EvaluateResult) -> str:
    """Logs ``eval/<model>/<task>/<metric>`` to a W&B run and returns its id; empty where W&B failed.

    Project, group, name, id and mode come from ``WANDB_*``, which the task sets; offline unless they say
    otherwise. Scores that are computed are never lost to a logger.
    """
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(run.folder))
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        logged = wandb.init(job_type=run.stage, config=run.config)
        logged.log(
            {
                f"eval/{model}/{task}/{metric}": value
                for model, tasks in result.scores.items()
                for task, metrics in tasks.items()
                for metric, value in metrics.items()
            }
        )
        logged.finish()
        return str(logged.id)
    except Exception as error:
        logger.warning("the scores aren't in W&B: %s", error)
        return ""
