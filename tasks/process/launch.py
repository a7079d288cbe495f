"""Starts a stage's process, follows it, and returns its typed result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.process.host_memory import oom_kills
from tasks.process.metrics_tail import MetricsTail
from tasks.process.outcome import read_outcome
from tasks.process.process import GRACE_SECONDS, started
from titanflow.planning.launch import by_hand
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.results import StageResult

POLL_SECONDS = 2.0
"""How often the metrics are read. The end of the process is noticed at once."""


def launch(
    stage: str,
    folder: Path,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    on_metrics: Callable[[list[dict[str, Any]]], None] = lambda records: None,
    grace: float = GRACE_SECONDS,
    poll: float = POLL_SECONDS,
) -> StageResult:
    """Runs a stage to its end.

    ``on_metrics`` is called every ``poll`` seconds with the new records of the stage's ``metrics.jsonl``, also if there
    are none. Output goes to ``<folder>/<stage>.log``, below the command. Whatever ends the wait, no process is left:
    the ranks get SIGTERM and ``grace`` seconds to save.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{stage}.log"
    with log.open("a", encoding="utf-8") as file:
        log_start = file.tell()
        file.write(f"$ {by_hand(command, env or {})}\n")
    tail = MetricsTail(folder / METRICS_FILE)
    killed_before = oom_kills()
    with started(command, log, env, grace) as process:
        while (returncode := process.wait(poll)) is None:
            on_metrics(tail.read())
    on_metrics(tail.read())
    return read_outcome(stage, folder, returncode, log, log_start, oom_kills() != killed_before)
