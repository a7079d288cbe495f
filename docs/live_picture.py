"""A picture of the live view, from a finished run: ``python docs/live_picture.py [RUN] [--stage sft] [--share 0.45]``.

The view hears again what it heard when the run ran: when each stage began and ended, its records and its result. The
picture is what it showed when that share of the stage's steps was done.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console
from rich.terminal_theme import MONOKAI

from flows.live import run_view
from flows.live.run_view import RunView
from tasks.ui import standing
from tasks.ui.standing import Standing, total_steps
from titanflow.common.errors import ConfigError, Problem, TitanflowError
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import read_result

TITLE = "titanflow run"
WIDTH = 92
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich's pictures ask a server for their font."""
FAMILY = "DejaVu Sans Mono, Menlo, Consolas, monospace"


@contextmanager
def view_clock() -> Iterator[SimpleNamespace]:
    """The clock that the view and its stages read, in seconds; the caller sets ``now``."""
    clock = SimpleNamespace(now=0.0)
    modules, own = (run_view, standing), SimpleNamespace(monotonic=lambda: clock.now)
    before = [module.time for module in modules]
    try:
        for module in modules:
            module.time = own  # type: ignore[assignment]
        yield clock
    finally:
        for module, real in zip(modules, before, strict=True):
            module.time = real


def finished_plan(run: Path, manifest: Manifest) -> Plan:
    """The run's stages as they were planned when it began.

    Raises:
        ConfigError: a stage hasn't finished.
    """
    stages = []
    for stage, record in manifest.stages.items():
        if (own := StageRun.of(run / stage)) is None:
            continue
        if not record.finished:
            raise ConfigError(Problem(f"{run}: {stage} hasn't finished", hint=f"titanflow run {manifest.experiment}"))
        forecast = Forecast(**{**record.forecast, "memory": None}) if record.forecast else None
        stages.append(StagePlan(stage, "RUN", "new", own, forecast=forecast))
    if not stages:
        raise ConfigError(Problem(f"{run} is no finished run", hint="titanflow run stdlib"))
    return Plan(manifest.experiment, manifest.run, run, stages, None)  # type: ignore[arg-type]


def replayed(run: Path, pictured: str, share: float, clock: SimpleNamespace) -> RunView:
    """The view as it was when ``share`` of the stage's steps were done."""
    manifest = Manifest.open(run)
    plan = finished_plan(run, manifest)
    if plan.stage(pictured) is None:
        raise ConfigError(Problem(f"{run} has no stage {pictured}", "--stage", expected=_names(plan)))
    clock.now = began = _time(manifest.stages[plan.stages[0].stage].started)
    view = RunView(plan)
    view.plans(plan)
    for stage in plan.stages:
        record = manifest.stages[stage.stage]
        clock.now = max(began, _time(record.started))
        seen = Standing(stage.run)
        view.begins(seen)
        is_pictured = stage.stage == pictured
        _tell(seen, run / stage.stage / "metrics.jsonl", share if is_pictured else 1.0, clock, record)
        if is_pictured:
            return view
        clock.now = _time(record.finished)
        view.ends(stage.stage, read_result(run / stage.stage))
    raise AssertionError(pictured)


def _tell(seen: Standing, file: Path, share: float, clock: SimpleNamespace, record: StageRecord) -> None:
    """Tells of a stage's records at the times at which they were written: the last one when the file was."""
    records = read_metrics(file) if file.is_file() else []
    if not records:
        return
    end = min(file.stat().st_mtime, _time(record.finished))
    steps = total_steps(seen.run.config) or records[-1].get("steps") or records[-1]["step"]
    for one in records:
        if one["step"] > share * steps:
            return
        clock.now = end - records[-1].get("seconds", 0.0) + one.get("seconds", 0.0)
        seen.add([one], clock.now)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _names(plan: Plan) -> str:
    return ", ".join(stage.stage for stage in plan.stages)


def picture(view: RunView, title: str) -> str:
    """The view as an SVG that asks nobody for a font."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in view.lines(WIDTH - 3, 40, ascii_only=False):
        console.print(line)
    text = console.export_svg(title=title, theme=MONOKAI, unique_id="live")
    return FONT.sub("", text).replace("Fira Code, monospace", FAMILY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/stdlib/main"), metavar="RUN")
    parser.add_argument("--stage", default="sft")
    parser.add_argument("--share", type=float, default=0.45)
    parser.add_argument("--out", type=Path, default=Path("docs/images/live.svg"))
    args = parser.parse_args()
    try:
        with view_clock() as clock:
            view = replayed(args.run, args.stage, args.share, clock)
            text = picture(view, TITLE)
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"{args.out}: {len(text) / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
