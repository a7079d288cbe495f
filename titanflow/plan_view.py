"""A plan as a person reads it: the states in a table, below each stage what changed, and the commands."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from titanflow.changes import Change
from titanflow.launch import by_hand
from titanflow.plan import Plan, StagePlan

STATE_STYLES = {"RUN": "yellow", "RESUME": "cyan", "CACHED": "green", "STALE": "bold red"}
STAGE_WIDTH = 8
VALUE_WIDTH = 60
"""Characters of a value that are shown."""
CONTEXT = 8
"""Characters shown before the first that differs, of two long texts."""
WIDTH = 160
"""Columns that a plan takes where the output is no terminal."""


def plan_table(plan: Plan) -> RenderableType:
    """A plan's states and reasons; below each stage the values that changed, with where the new ones were written."""
    parts: list[RenderableType] = []
    for stage in plan.stages:
        row = Table(box=None, pad_edge=False, show_header=False)
        row.add_column(width=STAGE_WIDTH, no_wrap=True)
        row.add_column(width=6, no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(stage.stage, Text(stage.state, style=STATE_STYLES[stage.state]), Text(stage.reason))
        parts.append(row)
        if rows := [change for change in stage.changes if not change.parent]:
            parts.append(_changes_table(rows))
    return Group(*parts)


def _changes_table(changes: list[Change]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=STAGE_WIDTH)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for change in changes:
        old, new = shortened(change.old, change.new)
        table.add_row("", Text(change.key), Text(f"{old} → {new}"), Text(f"({change.origin})" if change.origin else ""))
    return table


def plan_markdown(plan: Plan) -> str:
    """A plan for Prefect's UI: a table of the stages, and one of what changed."""
    lines = ["| stage | state | reason |", "| --- | --- | --- |"]
    lines += [f"| {stage.stage} | {stage.state} | {_cell(stage.reason)} |" for stage in plan.stages]
    changes = [(stage.stage, change) for stage in plan.stages for change in stage.changes if not change.parent]
    if changes:
        lines += ["", "| stage | what changed | from | to | written in |", "| --- | --- | --- | --- | --- |"]
    for stage, change in changes:
        old, new = shortened(change.old, change.new)
        lines.append(f"| {stage} | {' | '.join(_cell(text) for text in (change.key, old, new, change.origin))} |")
    return "\n".join(lines)


def command_lines(plan: Plan) -> Iterator[str]:
    """Each stage's name, environment and command, as a shell takes them."""
    for stage in plan.stages:
        where = f", in pool {stage.pool}" if stage.pool else ""
        yield f"{stage.stage} ({stage.state}{where}):\n  {by_hand(stage.command, stage.env)}"


def stale_lines(stage: StagePlan) -> Iterator[str]:
    """Why a stage is STALE: a line a value of its own that changed, or the reason."""
    own = [change for change in stage.changes if not change.parent]
    if not own:
        yield f"{stage.stage}: {stage.reason}"
    for change in own:
        old, new = shortened(change.old, change.new)
        yield f"{stage.stage}: {change.key}: {old} → {new}" + (f" ({change.origin})" if change.origin else "")


def shortened(old: Any, new: Any) -> tuple[str, str]:
    """Two values as text, cut to what fits: of long ones the part that begins to differ; ``–`` for none."""
    texts = [_text(value) for value in (old, new)]
    if all(len(text) <= VALUE_WIDTH for text in texts) or None in (old, new):
        return _cut(texts[0], 0), _cut(texts[1], 0)
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    same = sum(1 for _ in pairs)
    return _cut(texts[0], same), _cut(texts[1], same)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, differs_at: int) -> str:
    text = text.replace("\n", "⏎")
    start = 0 if differs_at < VALUE_WIDTH // 2 else differs_at - CONTEXT
    shown = text[start : start + VALUE_WIDTH]
    return ("…" if start else "") + shown + ("…" if start + VALUE_WIDTH < len(text) else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
