"""The outcome of a run on one screen: losses, scores side by side, and where the model was published."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from titanflow.common.console import uncut
from titanflow.planning.stage_plan import Plan
from titanflow.publish.card.score_table import score
from titanflow.publish.gate.figures import figures
from titanflow.report.reconcile import headline, reconciled
from titanflow.report.render import REPORT_FILE
from titanflow.report.unused_rows import unused_rows
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import (
    EvaluateResult,
    GateDecision,
    PublishResult,
    TrainResult,
    counted,
    is_stderr,
    result_of,
    samples_file,
)

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24
LONGEST_ANSWER = 160
"""Characters of a question or an answer, each on one line."""


def render_summary(plan: Plan, options: str = "") -> RenderableType:
    """The summary of the stages that a run has finished so far.

    ``options`` are those of the run's command line, for the commands that look closer.
    """
    results = [result for stage in plan.stages if (result := result_of(stage.run.folder)) is not None]
    parts: list[RenderableType] = [Text(f"{stage.stage} {stage.reason}") for stage in plan.stages if stage.kept]
    training = [result for result in results if isinstance(result, TrainResult)]
    if training:
        parts.append(_training(training, plan.folder))
        parts += [_inheritance(result) for result in training if result.inheritance]
        parts += unused_rows(plan, training, options or plan.experiment)
    for result in results:
        if isinstance(result, EvaluateResult):
            title = f"Evaluation {result.stage}" if len(plan.of_kind("evaluate")) > 1 else "Evaluation"
            parts += [Text(), _scores(result, title), *_best(result), *_items(result), *_cut(result, plan.folder)]
            parts += [*_contamination(result), *_examples(result)]
        elif isinstance(result, PublishResult):
            parts += [Text(), _published(result)]
    if line := headline(reconciled(plan)):
        parts += [Text(), Text(line, style="dim")]
    if (page := plan.folder / REPORT_FILE).is_file():
        parts.append(Text(f"all of it: {page}", style="dim", overflow="fold"))
    return Panel.fit(Group(*parts), title=f"{plan.experiment} / {plan.run}", title_align="left", padding=(1, 2))


def _training(results: Iterable[TrainResult], folder: Path) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "loss", "", "validation", "tokens", "tokens/s", "time"):
        table.add_column(column, justify="left" if column in ("stage", "") else "right")
    for result in results:
        table.add_row(
            result.stage,
            f"{_number(result.first_loss)} → {_number(result.loss)}",
            curve(losses(folder / result.stage)),
            _number(result.validation_loss),
            f"{result.tokens:,}",
            "" if result.tokens_per_second is None else f"{result.tokens_per_second:,.0f}",
            f"{result.seconds:.0f} s",
        )
    return uncut(table)


def _inheritance(result: TrainResult) -> Text:
    where = f"listed in {result.stage}/{RESULT_FILE}"
    return Text(f"{result.stage}, of its base's settings: {counted(result.inheritance)} ({where})", style="dim")


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / METRICS_FILE) if record.get("loss") is not None]


def curve(values: list[float], width: int = CURVE_WIDTH) -> str:
    """Values as a line of block characters, at most ``width`` of them; empty without values."""
    if not values:
        return ""
    count = min(width, len(values))
    picked = [values[index * (len(values) - 1) // max(1, count - 1)] for index in range(count)]
    low, high = min(picked), max(picked)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in picked)


def _contamination(result: EvaluateResult) -> list[Text]:
    found = result.contamination
    style = "yellow" if found and found.leaked else "dim"
    return [Text(sentence, style=style, overflow="fold") for sentence in found.sentences()] if found else []


def _scores(result: EvaluateResult, title: str) -> Table:
    models, part = list(result.scores), f" on the {result.part} part" if result.part == "dev" else ""
    table = Table(box=None, title=title + part, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("task")
    table.add_column("metric")
    for model in models:
        table.add_column(model, justify="right")
    if result.reference:
        table.add_column("xz -9e", justify="right")
    for task, metric in shown_metrics(result):
        cells = [_score(result, model, task, metric) for model in models]
        xz = f"{result.reference[task]:.3f}" if task in result.reference and metric == "bits_per_byte" else ""
        table.add_row(task, metric, *cells, *([xz] if result.reference else []))
    if result.limit is not None:
        table.caption = f"limited to {result.limit:g} items a task: not comparable"
    return uncut(table)


def _best(result: EvaluateResult) -> list[Text]:
    return [Text(f"{name} is {best}", style="dim", overflow="fold") for name, best in result.best.items()]


def _items(result: EvaluateResult) -> list[Text]:
    return [Text(result.left_out_text, style="yellow", overflow="fold")] if result.left_out else []


def _cut(result: EvaluateResult, folder: Path) -> list[Text]:
    lines = []
    for model, tasks in result.cut.items():
        for task, cut in tasks.items():
            line = Text(f"{model} {task}: {cut}", style="yellow", overflow="fold")
            if (samples := samples_file(folder / result.stage, model, task)).is_file():
                line.append(f" ({samples})", style="dim")
            lines.append(line)
    return lines


def shown_metrics(result: EvaluateResult) -> list[tuple[str, str]]:
    """Each task with the metrics worth a row: of perplexities only bits per byte, which compares across tokenizers."""
    rows = []
    for task, scores in next(iter(result.scores.values())).items():
        metrics = [metric for metric in scores if not is_stderr(metric)]
        rows += [(task, metric) for metric in metrics if metric == "bits_per_byte" or not metric.endswith("perplexity")]
    return rows


def _score(result: EvaluateResult, model: str, task: str, metric: str) -> str:
    found = score(result.scores[model].get(task, {}), metric, result.samples.get(task))
    return "–" if found.value is None else str(found)


def _examples(result: EvaluateResult) -> list[RenderableType]:
    if not result.examples:
        return []
    table = Table(box=None, title="Some of its answers", title_justify="left", title_style="bold", pad_edge=False)
    columns = [column for column in result.examples[0] if column != "task"]
    for column in columns:
        table.add_column(column)
    for example in result.examples:
        table.add_row(*(Text(shorten(example.get(column, ""), LONGEST_ANSWER)) for column in columns))
    return [Text(), uncut(table)]


def _published(result: PublishResult) -> RenderableType:
    line = _held_back(result) if result.status == "held back" else _written(result)
    gate = [_gate(result.gate)] if result.gate and figures(result.gate) else []
    return Group(line, *([_next(result)] if result.status == "published" else []), *gate)


def _next(result: PublishResult) -> Text:
    """The command that talks with the model, as a shell takes it."""
    place = result.repo_id
    if not place:
        folder = Path(result.location)
        place = str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    return Text(f"talk with it: titanflow chat {shlex.quote(place)}", overflow="fold")


def _held_back(result: PublishResult) -> Text:
    reason = result.gate.reason if result.gate else ""
    return Text.assemble(("Held back", "bold yellow"), f": {reason}; nothing was written to {result.location}")


def _gate(gate: GateDecision) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, found in figures(gate):
        table.add_row(Text(name), Text(found))
    return uncut(table)


def _written(result: PublishResult) -> Text:
    tagged = f" tagged {result.tag}" if result.commit and result.tag else ""
    where = f"{result.location} {result.commit[:12]}".rstrip() + tagged
    verb = {"dry run": "Would publish", "proposed": "Proposed, not published yet:"}.get(result.status, "Published")
    return Text.assemble((f"{verb} ", "bold"), where, f" ({len(result.files)} files)", overflow="fold")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
