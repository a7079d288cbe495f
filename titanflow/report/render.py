"""``report.html``: a run on one page, made from its folder alone.

The page loads nothing: scripts, fonts and pictures from elsewhere are forbidden by its policy. Text from data or a
model is escaped.
"""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from titanflow.common.files import write_text_atomically
from titanflow.common.quantities import duration
from titanflow.publish.card.score_table import seeds_text
from titanflow.publish.card.tables import export_check
from titanflow.publish.card.training_data import training_data
from titanflow.report.contents import RunContents, read_contents
from titanflow.report.pictures import loss_svgs, score_svgs, smaller_svgs
from titanflow.report.reconcile import table_rows
from titanflow.report.scores import answers
from titanflow.report.sections import evaluated_models, inheritance, masked_rows, result_table, tiles, timings
from titanflow.runs.contract import TRAINED
from titanflow.runs.tracker_record import tracked

HERE = Path(__file__).parent
REPORT_FILE = "report.html"
BREAKS = re.compile(r"(?<=[_/,-])(?=\w)|(?<=[a-z]\.)(?=\w)")
"""The places where a long name may wrap."""


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a run's folder and returns its path.

    Raises:
        ConfigError: the folder isn't a run's.
    """
    path = folder / REPORT_FILE
    write_text_atomically(path, render_report(folder))
    return path


def render_report(folder: Path) -> str:
    run = read_contents(folder)
    trained = [stage for stage in run.stages if stage.kind in TRAINED]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "export_check": export_check, "breakable": breakable}
    environment.filters["tracked"] = tracked
    page = environment.get_template("report.html.jinja").render(
        run=run,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        state=run_state(run),
        tiles=tiles(run),
        pictures={
            stage.name: (list(map(Markup, loss_svgs(stage.metrics))), list(map(Markup, smaller_svgs(stage.metrics))))
            for stage in trained
        },
        scores={stage.name: list(map(Markup, score_svgs(stage.evaluations))) for stage in trained},
        unscored={
            stage.name: [one for one in stage.evaluations if "failed" in one] for stage in trained if stage.evaluations
        },
        part=next((one["part"] for stage in trained for one in stage.evaluations if one.get("part")), ""),
        answers={stage.name: given for stage in trained if (given := answers(stage.samples))},
        evaluations=[
            (one, result_table(one), evaluated_models(one), seeds_text(one.result.seeds)) for one in run.evaluations
        ],
        timings=timings(run),
        reconciled=table_rows([found for stage in run.stages if (found := stage.reconciled)]),
        data=training_data((stage.run for stage in trained if stage.run), run.datasets),
        masks={stage.name: rows for stage in run.stages if (rows := masked_rows(stage))},
        inheritance={stage.name: table for stage in run.stages if any((table := inheritance(stage)).values())},
    )
    return page + "\n"


def breakable(name: str) -> Markup:
    """A task's, file's or setting's name that may wrap after each of its parts."""
    return Markup("<wbr>").join(escape(part) for part in BREAKS.split(name))


def run_state(run: RunContents) -> str:
    for stage in run.stages:
        if stage.state != "finished" and not (stage.kind == "publish" and stage.result):
            return f"{stage.name} {stage.state}"
    states = {stage.name: stage.state for stage, _ in run.publications}
    if len(set(states.values())) > 1:
        return ", ".join(f"{name} {state}" for name, state in states.items())
    return next(iter(states.values()), "finished")
