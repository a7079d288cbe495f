"""Shows a plan to a person: the states in a table, the changes below each stage, and the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from titanflow.common.console import one_line, uncut
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.means.recipe import averaged_stages
from titanflow.planning.cluster.job_checks import submitted
from titanflow.planning.extension.more_steps import INSTEAD
from titanflow.planning.launch import by_hand
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.changes import Change
from titanflow.runs.results import NOT_INHERITED

STATE_STYLES = {"RUN": "yellow", "RESUME": "cyan", "EXTEND": "cyan", "CACHED": "green", "STALE": "bold red"}
STATE_WIDTH = 6
"""Characters of the longest state."""


def plan_table(plan: Plan) -> RenderableType:
    """A plan's states and reasons; below each stage the values that changed, and where the new ones were written."""
    parts: list[RenderableType] = []
    names = _names(plan)
    width = max(name.cell_len for name in names.values())
    for stage in plan.stages:
        row = Table(box=None, pad_edge=False, show_header=False)
        row.add_column(width=width)
        row.add_column(width=STATE_WIDTH)
        row.add_row(names[stage.stage], Text(stage.state, style=STATE_STYLES[stage.state]), Text(stage.reason))
        parts.append(uncut(row))
        if rows := [change for change in stage.changes if not change.parent]:
            parts.append(_changes_table(rows, width))
    return Group(*parts)


def _names(plan: Plan) -> dict[str, Text]:
    """How each stage is called; where two have the same kind, a training with what it starts from."""
    kinds = [stage.kind for stage in plan.stages]
    names = {stage.stage: Text(stage.stage) for stage in plan.stages}
    for stage in plan.stages if len(set(kinds)) < len(kinds) else ():
        if stage.run.trains and stage.run.base is not None:
            begun = ", ".join(averaged_stages(stage.run.config)) or stage.run.base.name
            names[stage.stage].append(f" ← {begun}", "dim")
    return names


def _changes_table(changes: list[Change], width: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=width)
    table.add_column()
    table.add_column()
    table.add_column(style="dim")
    for change in changes:
        old, new = _values(change)
        table.add_row("", Text(change.key), Text(f"{old} → {new}"), Text(f"({change.origin})" if change.origin else ""))
    return uncut(table)


def inheritance_tables(plan: Plan) -> RenderableType:
    """For each fine-tuning stage that would run: what it keeps and changes of its base."""
    parts: list[RenderableType] = []
    for stage in plan.stages:
        if rows := plan.inheritance(stage) if stage.state != "CACHED" else []:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for heading in (stage.stage, "", "value", "from"):
                table.add_column(heading)
            for row in rows:
                table.add_row(Text(row.key), Text(row.how), Text(row.value), Text(row.origin, style="dim"))
            parts += [uncut(table), Text(NOT_INHERITED, style="dim")]
    return Group(*parts)


def plan_markdown(plan: Plan) -> str:
    """A plan for Prefect's UI: a table of the stages, and one of what changed."""
    lines = ["| stage | state | reason |", "| --- | --- | --- |"]
    lines += [f"| {stage.stage} | {stage.state} | {_cell(stage.reason)} |" for stage in plan.stages]
    changes = [(stage.stage, change) for stage in plan.stages for change in stage.changes if not change.parent]
    if changes:
        lines += ["", "| stage | what changed | from | to | written in |", "| --- | --- | --- | --- | --- |"]
    for stage, change in changes:
        old, new = _values(change)
        lines.append(f"| {stage} | {' | '.join(_cell(text) for text in (change.key, old, new, change.origin))} |")
    return "\n".join(lines)


def command_lines(plan: Plan) -> Iterator[str]:
    """Each stage's name, environment and command, as a shell takes them; of a cluster's job what submits it."""
    for stage in plan.stages:
        where = f", in pool {stage.pool}" if stage.pool else ""
        # The end of a job's text stands at the beginning of a line, or a shell doesn't see it.
        line = submitted(stage) if stage.is_job else indent(by_hand(stage.command, stage.env), "  ")
        yield f"{stage.stage} ({stage.state}{where}):\n{line}"


def stale_lines(stage: StagePlan) -> Iterator[str]:
    """Why a stage is STALE: a line for each of its own values that changed, or else the reason."""
    own = [change for change in stage.changes if not change.parent]
    if not own:
        yield f"{stage.stage}: {stage.reason}"
    refusal = f"; {stage.extension.refusal}" if stage.extension and stage.extension.refusal else ""
    for change in own:
        old, new = _values(change)
        yield f"{stage.stage}: {change.key}: {old} → {new}" + (f" ({change.origin})" if change.origin else "") + refusal


def _values(change: Change) -> tuple[str, str]:
    """The old and the new value, each whole and on one line; ``–`` for none."""
    return _text(change.old), _text(change.new)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def check_stale(plan: Plan) -> None:
    """Refuses a plan with a stage that was made from other inputs, unless the experiment says what to do with it.

    Raises:
        ConfigError: names what changed, and the ways out.
    """
    stale = [stage for stage in plan.stages if stage.state == "STALE"]
    if not stale or plan.config.spec.on_stale == "rerun":
        return
    found = [line for stage in stale for line in stale_lines(stage)]
    served = "in a deployment: the parameters on_stale and run; in the experiment's file: on_stale"
    instead = [INSTEAD] if any(stage.extension and stage.extension.refusal for stage in stale) else []
    why = "" if plan.config.spec.on_stale == "error" else ", and whose output can't be kept: it is incomplete"
    raise ConfigError(
        Problem(
            f"found stages that were made from other inputs{why}:\n    " + "\n    ".join(found),
            origin=str(plan.folder),
            expected="one of: --on-stale rerun (makes them again; their old output moves to superseded/), "
            "--on-stale keep (uses the old output as it is), --run NAME (makes a second run beside this one)",
            hint="; ".join([*instead, served]),
        )
    )
