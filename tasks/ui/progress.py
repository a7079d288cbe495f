"""How Prefect shows a running stage: log lines, a progress ring, and at the end tables and a curve."""

from __future__ import annotations

import time
from typing import Any

from tasks.ui.artifacts import Artifacts, Logger, loss_curve
from tasks.ui.results import links, rows
from tasks.ui.scores import score_curves, score_rows
from tasks.ui.standing import Standing, beside_the_ring, describe
from tasks.ui.tables import begin_tables, finish_tables
from tasks.ui.watcher import STEP_LINE, watcher
from titanflow.runs.contract import METRICS_FILE, StageRun
from titanflow.runs.metrics import EVALUATIONS_FILE, read_metrics
from titanflow.runs.results import StageResult

LINE_SECONDS = 10.0
RING_SECONDS = 30.0
"""Each move of the ring is a request, and API and database may share two cores with the training."""
LINE_SHARE = 0.01
"""Later on, lines are apart by this share of the time so far: a minute after two hours."""


class Progress:
    """Follows one stage; call it with each batch of new metrics records, of which the next line of the log tells."""

    def __init__(self, run: StageRun, logger: Logger) -> None:
        self.run = run
        self.standing = Standing(run)
        self._logger = logger
        self._artifacts = Artifacts(run.stage, logger)
        self._has_begun = False
        self._untold: dict[str, Any] = {}
        self._line_at = 0.0
        self._ring_at = 0.0
        watcher().begins(self.standing)

    def __call__(self, records: list[dict[str, Any]]) -> None:
        """Logs the newest step and moves the progress ring, unless it did so a moment ago."""
        if not self._has_begun:
            # Now, two seconds after the start: this takes less time than the stage's own start.
            self._has_begun = True
            for what, table, text in begin_tables(self.run, self._logger):
                self._artifacts.table(what, table, text)
        now = time.monotonic()
        self._untold |= self.standing.add(records, now)
        if not self._untold:
            return
        if now >= self._line_at:
            self._tell(now)
        if now >= self._ring_at:
            self._move_ring(now)

    def waits(self, text: str) -> None:
        """Logs what a cluster's job waits for, and shows it beside the ring, which stands where it stood."""
        self._logger.info(text)
        self.standing.said = text
        self._artifacts.progress(100.0 * (self.standing.share or 0.0), text)

    def finish(self, result: StageResult) -> None:
        stage, now = self.run.stage, time.monotonic()
        if self._untold:
            self._tell(now)
        if self.standing.newest and self.standing.steps:
            self._artifacts.progress(100.0, self._where(now))
        self._artifacts.table("results", rows(result), f"Results of {stage}")
        for what, table, text in finish_tables(result):
            self._artifacts.table(what, table, text)
        records = read_metrics(self.run.folder / METRICS_FILE)
        if curve := loss_curve(records, f"{self.run.experiment} {stage}"):
            self._artifacts.image("loss", curve, f"Loss of {stage}")
        evaluations = read_metrics(self.run.folder / EVALUATIONS_FILE)
        self._artifacts.table("scores", score_rows(evaluations), f"Scores of {stage} while it trained")
        if curves := score_curves(evaluations):
            self._artifacts.image("score-curves", curves, f"Scores of {stage} while it trained")
        for what, (text, url) in links(self.run.folder, result).items():
            self._artifacts.link(what, url, text)
        watcher().ends(stage, result)

    def _tell(self, now: float) -> None:
        standing = self.standing
        line = describe(self.run.stage, self._untold, standing.steps, standing.seconds_left(now))
        self._logger.info(line, extra={STEP_LINE: True})
        self._untold = {}
        so_far = now - standing.first_seen if standing.first_seen is not None else 0.0
        self._line_at = now + max(LINE_SECONDS, LINE_SHARE * so_far)

    def _move_ring(self, now: float) -> None:
        if (share := self.standing.share) is not None:
            self._artifacts.progress(100.0 * share, self._where(now))
            self._ring_at = now + RING_SECONDS

    def _where(self, now: float) -> str:
        standing = self.standing
        return beside_the_ring(standing.newest, standing.steps, standing.seconds_left(now))
