"""Forecasts beside what the stages really took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from titanflow.common.quantities import duration, price, size
from titanflow.planning.forecast.forecast import cost_of
from titanflow.runs.contract import RESULT_FILE
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import read_result

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import Plan


@dataclass(frozen=True)
class Reconciled:
    """One finished stage: seconds from start to end, tokens a second, bytes of a rank and cost; None is unknown."""

    stage: str
    expected_seconds: float | None = None
    seconds: float | None = None
    expected_speed: float | None = None
    speed: float | None = None
    expected_memory: int | None = None
    memory: int | None = None
    expected_cost: float | None = None
    cost: float | None = None
    source: str = ""


def reconcile(stage: str, record: StageRecord, result: object) -> Reconciled | None:
    """A stage's forecast beside its result; None if it isn't finished, or had no forecast."""
    forecast, seconds = record.forecast, wall_seconds(record)
    if not forecast or seconds is None:
        return None
    rate = forecast.get("price_per_hour")
    return Reconciled(
        stage=stage,
        expected_seconds=forecast.get("seconds"),
        seconds=seconds,
        expected_speed=forecast.get("tokens_per_second"),
        speed=getattr(result, "tokens_per_second", None),
        expected_memory=(forecast.get("memory") or {}).get("total"),
        memory=getattr(result, "peak_memory_bytes", None),
        expected_cost=forecast.get("cost"),
        cost=None if rate is None else cost_of(seconds, forecast.get("devices") or 1, rate),
        source=forecast.get("source") or "",
    )


def reconciled(plan: Plan) -> list[Reconciled]:
    """The stages of a plan with a forecast that have finished since."""
    manifest, found = Manifest.open(plan.folder), []
    for stage in plan.stages:
        record, folder = manifest.stages.get(stage.stage), stage.run.folder
        if stage.forecast is not None and record is not None and (folder / RESULT_FILE).exists():
            found.append(reconcile(stage.stage, record, read_result(folder)))
    return [one for one in found if one is not None]


def wall_seconds(record: StageRecord) -> float | None:
    """From a stage's start to its end, start-up and export included; None if it isn't finished."""
    if not record.started or not record.finished:
        return None
    started, finished = (datetime.fromisoformat(one) for one in (record.started, record.finished))
    return (finished - started).total_seconds()


def headline(found: Iterable[Reconciled]) -> str:
    """All stages whose time was forecast, in one line; empty if there are none."""
    known = [one for one in found if one.expected_seconds is not None and one.seconds is not None]
    if not known:
        return ""
    expected, took = (sum(getattr(one, name) for one in known) for name in ("expected_seconds", "seconds"))
    text = f"forecast {duration(expected)}, took {duration(took)} ({', '.join(one.stage for one in known)})"
    if costs := [one.cost for one in known if one.cost is not None]:
        text += f"; forecast cost {price(sum(one.expected_cost or 0 for one in known))}, was {price(sum(costs))}"
    return text


def table_rows(found: Iterable[Reconciled]) -> list[dict[str, Any]]:
    """The rows of a table: each figure as forecast and as measured."""
    columns: Mapping[str, tuple[str, str, Any]] = {
        "time": ("expected_seconds", "seconds", duration),
        "tokens/s": ("expected_speed", "speed", lambda value: f"{value:,.0f}"),
        "memory of a rank": ("expected_memory", "memory", size),
        "cost": ("expected_cost", "cost", price),
    }
    return [
        {"stage": one.stage}
        | {title: _beside(getattr(one, expected), getattr(one, actual), show)
           for title, (expected, actual, show) in columns.items()}
        | {"forecast": one.source or "none"}
        for one in found
    ]  # fmt: skip


def _beside(expected: float | None, actual: float | None, show: Any) -> str:
    """``forecast → actual``, with a dash for an unknown figure."""
    if expected is None and actual is None:
        return ""
    return " → ".join("–" if value is None else show(value) for value in (expected, actual))
