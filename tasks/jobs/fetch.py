"""Fetches what a job needs of the Hub before it is submitted: a compute node often has no internet."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tasks.process.outcome import read_outcome
from tasks.process.process import started
from titanflow.planning.launch import by_hand
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import RUN_FILE

MODULE = "titanflow.data.fetch"


def fetch_from_hub(plan: StagePlan, environment: Mapping[str, str]) -> None:
    """Brings a prepare step's models, tokenizer and datasets into the Hub's cache, in a process of this machine.

    Raises:
        TitanflowError: something isn't there, or the Hub can't be reached.
    """
    if plan.kind != "prepare":
        return
    folder = plan.run.folder
    command, log = [sys.executable, "-m", MODULE, str(folder / RUN_FILE)], folder / f"{plan.stage}.log"
    with log.open("a", encoding="utf-8") as file:
        log_start = file.tell()
        file.write(f"$ {by_hand(command, environment)}\n")
    with started(command, log, environment) as process:
        while (status := process.wait(1.0)) is None:
            pass
    if status:
        read_outcome(plan.stage, folder, status, log, log_start)
