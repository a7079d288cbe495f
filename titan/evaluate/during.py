"""Scores checkpoints of a training that is under way: ``python -m titan.evaluate.during run.yaml``.

It is the evaluation of :mod:`titan.evaluate.evaluate`, whose models are named ``step-N``. At each tracker all
checkpoints of a training share one run, in which a row is a step.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from titan.evaluate.evaluate import main
from titan.process.interrupt import leave
from titanflow.config.keys.after_training import Evaluate
from titanflow.runs.contract import StageRun
from titanflow.runs.metrics import EVALUATIONS_FILE, read_metrics
from titanflow.runs.results import EvaluateResult, TrackerRecord
from titanflow.runs.tracker_record import asked_trackers, read_tracker_record

STEP = "step-"
"""What the name of a checkpoint, and so of a model, begins with."""

logger = logging.getLogger("titanflow.evaluate")


def log_step(run: StageRun, settings: Evaluate, result: EvaluateResult) -> dict[str, TrackerRecord]:
    """Adds the rows ``during/<task>/<metric>`` of the steps to the training's second run at each tracker asked for.

    A failure is only logged: the scores are in ``evaluations.jsonl``.
    """
    trackers = asked_trackers(vars(settings))
    if not trackers:
        return {}
    # It imports torchtitan, whose logger it uses.
    from titan.tracking.loggers import ForgivingLoggers
    from titan.tracking.stores.store_logger import StoreLogger
    from titan.tracking.wandb_logger import WandbLogger

    before = read_metrics(run.folder.parent / EVALUATIONS_FILE)
    loggers = ForgivingLoggers(WandbLogger(run) if one == "wandb" else StoreLogger(run, one) for one in trackers)
    loggers.begin({record["step"]: row(record["scores"]) for record in before if "scores" in record})
    for name, scores in result.scores.items():
        loggers.log(row(scores), int(name.removeprefix(STEP)))
    loggers.close()
    return {one: record for one in trackers if (record := read_tracker_record(run.folder, one)) is not None}


def row(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``scores[task][metric]`` under the loggers' names."""
    return {f"during/{task}/{metric}": value for task, metrics in scores.items() for metric, value in metrics.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), log_step)
    leave(0)
