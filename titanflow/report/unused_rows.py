"""The rows of a run's data that nothing was trained on: left out, cut, or not reached; each with where to look."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from titanflow.config.batch import global_batch_size
from titanflow.publish.card.training_data import PARTS, TrainingData, prepared_datasets, training_data
from titanflow.runs.contract import DATASET_FILE, StageRun
from titanflow.runs.results import TrainResult

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import Plan

MUCH = 0.1
"""A larger share of a source's rows is told in colour."""


def unused_rows(plan: Plan, results: Iterable[TrainResult], options: str) -> list[Text]:
    """A line for each source and way in which its rows weren't used; ``options`` are the command line's of the run."""
    finished = [(run, one) for one in results if (run := StageRun.of(plan.folder / one.stage)) is not None]
    data = training_data([run for run, _ in finished], prepared_datasets(plan.folder))
    lines = [line for one in data for line in _left_out(one, _look(one, options))]
    return lines + [line for run, result in finished for line in _not_reached(run, result, data)]


def _look(one: TrainingData, options: str) -> str:
    """What shows the rows: the masks of chats, else the file that accounts for each file's rows."""
    if one.kind != "chat" or one.part != PARTS["train"]:
        return str(one.folder / DATASET_FILE)
    return f"titanflow masks {options} --module {shlex.quote(one.stage)}"


def _left_out(one: TrainingData, look: str) -> Iterator[Text]:
    kept, dropped = one.documents or 0, sum(one.dropped.values())
    where = f"rows of {one.name} ({one.part})"
    if dropped:
        share = dropped / (kept + dropped)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items())
        is_long = share > MUCH and "too_long" in one.dropped
        hint = "; raise training.seq_len or set data.overlong" if is_long else ""
        found = f"{share:.0%} of the" if share > MUCH else f"{dropped:,} of {kept + dropped:,}"
        yield _line(share, f"{one.stage}: {found} {where} were left out: {reasons}{hint}", look)
    if one.cut and kept:
        found = f"{one.cut:,} of {kept:,} {where} were cut to {one.seq_len} tokens"
        yield _line(one.cut / kept, f"{one.stage}: {found}", look)


def _not_reached(run: StageRun, result: TrainResult, data: Iterable[TrainingData]) -> Iterator[Text]:
    """Of one source, read in order: the rows behind the last step's. A mixture's weights decide what is read of it."""
    sources = [one for one in data if (one.stage, one.part) == (run.stage, PARTS["train"])]
    batch = global_batch_size(run.config)
    if len(sources) != 1 or not (rows := sources[0].rows) or not batch or result.step * batch >= rows:
        return
    read = result.step * batch
    found = f"{run.stage}: {read:,} of {rows:,} rows of {sources[0].name} were reached ({read / rows:.0%})"
    yield Text(f"{found}; training.steps: {-(-rows // batch)} reaches all", style="dim", overflow="fold")


def _line(share: float, found: str, look: str) -> Text:
    line = Text(found, style="yellow" if share > MUCH else "dim", overflow="fold")
    return line.append(f" ({look})", style="dim")
