"""What a person sees of a running flow: each stage with its result, its progress or what it waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.text import Text

from tasks.process.stage_log import LogTail, newest_bar, read_line
from tasks.ui.results import headline
from tasks.ui.standing import Standing, clock, scores, thousands
from tasks.ui.watcher import Watcher
from titanflow.common.console import one_line
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.report.summary import curve
from titanflow.runs.contract import LIBRARY_LOG
from titanflow.runs.results import StageResult

TIME_WIDTH = 7
INDENT = 2
LONGEST_BAR = 60
SWEEP = 8
"""Cells of the piece that wanders through the bar of a stage that can't count its work."""
Progress = Literal["waits", "runs", "done", "failed", "stopped"]
MARKS: dict[Progress, tuple[str, str, str]] = {
    "waits": ("·", ".", "dim"),
    "runs": ("▸", ">", "bold cyan"),
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "bold red"),
    "stopped": ("■", "#", "yellow"),
}
"""A stage's mark, the same in ASCII, and its colour."""
ELLIPSIS = ("…", "...")
"""What stands for the rest of a text; the second in ASCII."""


@dataclass
class Row:
    """One stage: how far it is, and what is said of it."""

    plan: StagePlan
    progress: Progress = "waits"
    text: str = ""
    seconds: float | None = None
    standing: Standing | None = None
    log: LogTail | None = None
    said: str = ""
    warned: set[str] = field(default_factory=set)

    @property
    def log_file(self) -> Path:
        return self.plan.run.folder / f"{self.plan.stage}.log"


class RunView(Watcher):
    """Hears what the flow tells in its thread, and is drawn in another: it only replaces values, one at a time."""

    def __init__(self, plan: Plan) -> None:
        self.shows_steps = True
        self._plan = plan
        self._rows = {stage.stage: Row(stage) for stage in plan.stages}
        self._began = time.monotonic()
        self._doing = "starting Prefect"
        self._is_over = False

    @property
    def _width(self) -> int:
        return max((len(name) for name in self._rows), default=0)

    def plans(self, plan: Plan) -> None:
        self._plan, self._rows, self._doing = plan, {stage.stage: Row(stage) for stage in plan.stages}, ""

    def says(self, text: str) -> None:
        self._doing = one_line(text)

    def begins(self, standing: Standing) -> None:
        row, self._doing = self._rows[standing.run.stage], ""
        row.log = LogTail(row.log_file)
        row.standing, row.said, row.progress = standing, "", "runs"

    def ends(self, stage: str, result: StageResult) -> None:
        row = self._rows[stage]
        row.text = one_line(headline(result))
        row.seconds = time.monotonic() - row.standing.began if row.standing is not None else None
        row.progress = "done"

    def close(self, error: BaseException | None) -> None:
        self._doing, self.shows_steps, self._is_over = "", False, True
        for row in self._rows.values():
            if row.progress == "runs":
                row.progress = "failed" if isinstance(error, Exception) else "stopped"
                row.seconds = time.monotonic() - row.standing.began if row.standing is not None else None

    def look(self) -> list[Text]:
        """Reads what the stages' logs say since the last look; returns their new warnings."""
        return [line for row in list(self._rows.values()) if row.log is not None for line in self._heard(row, row.log)]

    def _heard(self, row: Row, log: LogTail) -> list[Text]:
        warnings = []
        for line in log.read().splitlines():
            said = read_line(line)
            # Its command line is no news.
            if said.text and not said.text.startswith("$ "):
                row.said = said.text
            if said.is_warning and said.text not in row.warned:
                row.warned.add(said.text)
                warnings.append(Text.assemble(("warning: ", "yellow"), f"{row.plan.stage}: {said.text}"))
        if row.plan.kind == "evaluate" and row.progress == "runs":
            row.said = newest_bar(row.plan.run.folder / LIBRARY_LOG) or row.said
        return warnings

    def lines(self, width: int, height: int, ascii_only: bool) -> list[Text]:
        """At most ``height`` lines of at most ``width`` cells; where they are too few, the running stage alone."""
        now = time.monotonic()
        rows = list(self._rows.values())
        stages = {row.plan.stage: self._stage(row, now, width, ascii_only) for row in rows}
        found = [self._title(rows, now, ascii_only), *(line for lines in stages.values() for line in lines)]
        if len(found) > height:
            running = [line for row in rows if row.progress == "runs" for line in stages[row.plan.stage]]
            found = [*(running or found[1:]), found[0]][:height]
        for line in found:
            line.no_wrap = True
            _cut(line, width, ascii_only)
        return found

    def _title(self, rows: list[Row], now: float, ascii_only: bool) -> Text:
        title = Text.assemble((f"{self._plan.experiment} / {self._plan.run}", "bold"), f"  {clock(now - self._began)}")
        if not self._is_over and (left := self._left(rows, now)):
            title.append(f"  {left}")
        if self._doing:
            title.append(f"  {self._doing} {ELLIPSIS[ascii_only]}", "dim")
        return title

    def _left(self, rows: list[Row], now: float) -> str:
        """The time that the stages which aren't done will take, as far as it was ever measured."""
        open_rows = [row for row in rows if row.progress in ("waits", "runs") and row.plan.state != "CACHED"]
        times = {row.plan.stage: _seconds_left(row, now) for row in open_rows}
        known = [seconds for seconds in times.values() if seconds is not None]
        if not known:
            return ""
        unknown = [stage for stage, seconds in times.items() if seconds is None]
        return f"about {clock(sum(known))} left" + (f" without {', '.join(unknown)}" if unknown else "")

    def _stage(self, row: Row, now: float, width: int, ascii_only: bool) -> list[Text]:
        mark, plain_mark, style = MARKS[row.progress]
        head = Text.assemble((f"{plain_mark if ascii_only else mark} ", style), f"{row.plan.stage:<{self._width}}")
        if row.progress == "runs" and row.standing is not None:
            return self._running(head, row, row.standing, now, width, ascii_only)
        if row.progress == "waits":
            seconds = row.plan.forecast.seconds if row.plan.forecast is not None else None
            head.append(f" {'' if seconds is None else '~' + clock(seconds):>{TIME_WIDTH}}  {_waits_for(row)}")
            head.stylize("dim")
            return [head]
        far = _step(row.standing) if row.standing is not None and row.standing.newest else ""
        head.append(f" {'' if row.seconds is None else clock(row.seconds):>{TIME_WIDTH}}  {row.text or far}")
        return [head, *_warned(row)]

    def _running(
        self, head: Text, row: Row, standing: Standing, now: float, width: int, ascii_only: bool
    ) -> list[Text]:
        newest, left = standing.newest, standing.countdown(now)
        parts = [_step(standing)] if newest else []
        parts += [f"{clock(left)} left"] if left is not None else []
        parts += [f"{thousands(newest['tokens_per_second'])} tokens/s"] if "tokens_per_second" in newest else []
        head.append(
            f" {clock(now - standing.began):>{TIME_WIDTH}}  {one_line(standing.said) or ', '.join(parts) or row.said}"
        )
        lines = [head, _bar(standing.share if newest else None, now - standing.began, width, ascii_only)]
        if figures := _figures(standing, ascii_only):
            lines.append(Text(" " * INDENT + figures))
        # What the log says is worth a line where no figure moves: the task of an evaluation, the parts of an export.
        if newest and (standing.share == 1.0 or "task" in newest) and row.said:
            lines.append(Text(" " * INDENT + row.said, "dim"))
        return [*lines, *_warned(row)]


def _step(standing: Standing) -> str:
    return f"step {standing.newest['step']:,}" + (f" of {standing.steps:,}" if standing.steps else "")


def _cut(line: Text, width: int, ascii_only: bool) -> None:
    if line.cell_len > width:
        rest = ELLIPSIS[ascii_only][:width]
        line.truncate(width - len(rest))
        line.append(rest)


def _waits_for(row: Row) -> str:
    return row.plan.reason if row.plan.state in ("CACHED", "RESUME") else ""


def _seconds_left(row: Row, now: float) -> float | None:
    """Of a stage: by its own speed, or else by the plan's forecast."""
    forecast = row.plan.forecast.seconds if row.plan.forecast is not None else None
    if row.standing is None:
        return forecast
    left = row.standing.countdown(now)
    if left is not None or forecast is None:
        return left
    passed = now - row.standing.began
    return forecast - passed if passed < forecast else None


def _figures(standing: Standing, ascii_only: bool) -> str:
    """The losses with their curve, or the scores of the newest task."""
    newest = standing.newest
    parts = []
    if "task" in newest:
        parts.append(" ".join([newest["model"], newest["task"], *scores(newest)]))
    if "loss" in newest:
        line = "" if ascii_only else curve([*standing.losses, newest["loss"]])
        parts.append(f"loss {newest['loss']:.3f} {line}".rstrip())
    if "validation_loss" in newest:
        parts.append(f"validation {newest['validation_loss']:.3f}")
    return "  ".join(parts)


def _warned(row: Row) -> list[Text]:
    if not row.warned:
        return []
    count = len(row.warned)
    where = f"{row.plan.stage}/{row.plan.stage}.log"
    return [Text(f"{' ' * INDENT}{count} warning{'' if count == 1 else 's'} in {where}", "yellow")]


def _bar(share: float | None, seconds: float, width: int, ascii_only: bool) -> Text:
    """A bar with its percents; without a share, a piece that wanders with the seconds."""
    whole, empty = ("#", "-") if ascii_only else ("━", "─")
    cells = max(1, min(LONGEST_BAR, width - INDENT - len(" 100%")))
    line = Text(" " * INDENT)
    if share is None:
        sweep = min(SWEEP, cells)
        at = round(seconds) * (sweep // 2 or 1) % (cells - sweep + 1)
        return line.append(empty * at, "dim").append(whole * sweep, "cyan").append(empty * (cells - sweep - at), "dim")
    done = int(share * cells)
    return line.append(whole * done, "cyan").append(empty * (cells - done), "dim").append(f" {share:>4.0%}")
