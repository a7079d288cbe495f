"""A plan's forecasts as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from titanflow.common.console import uncut
from titanflow.common.quantities import duration, price, short, size
from titanflow.planning.forecast.forecast import Forecast

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan

UNKNOWN = "—"


def forecast_table(stages: Iterable[StagePlan]) -> RenderableType:
    """Time, memory of a rank, model and cost of each stage that isn't done, and their sum; empty if all are done."""
    forecasts = {stage.stage: stage.forecast for stage in stages if stage.forecast is not None}
    if not forecasts:
        return Group()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("forecast", "time", "memory", "cost", ""):
        if column != "cost" or any(one.price_per_hour is not None for one in forecasts.values()):
            table.add_column(column, justify="right" if column in ("time", "memory", "cost") else "left")
    for stage, forecast in forecasts.items():
        table.add_row(stage, *forecast_cells(forecast).values())
    return Group(uncut(table), Text(total_line(forecasts.values()), style="dim"))


def forecast_rows(stages: Iterable[StagePlan]) -> list[dict[str, str]]:
    """The same table as rows, one for each stage, with the source of its time."""
    found = {stage.stage: stage.forecast for stage in stages if stage.forecast is not None}
    return [{"stage": stage, **forecast_cells(forecast), "from": forecast.source} for stage, forecast in found.items()]


def forecast_cells(forecast: Forecast) -> dict[str, str]:
    """A stage's time, memory of a rank, cost (if there is a price) and model, each by its column."""
    parts = [f"{short(forecast.parameters)} parameters"] if forecast.parameters else []
    if forecast.parameters and forecast.trained_parameters != forecast.parameters:
        whole = f" ({short(forecast.whole_parameters)} in whole modules)" if forecast.whole_parameters else ""
        parts.append(f"{short(forecast.trained_parameters or 0)} trained{whole}")
    if forecast.muon:
        parts.append(f"{short(forecast.muon.parameters)} in {forecast.muon.tensors} tensors by Muon")
    if forecast.tokens:
        parts.append(f"{short(forecast.tokens)} tokens")
    parts += [forecast.unknown] if forecast.unknown else []
    cost = UNKNOWN if forecast.cost is None else f"~{price(forecast.cost)}"
    return {
        "time": UNKNOWN if forecast.seconds is None else f"~{duration(forecast.seconds)}",
        "memory": _memory(forecast),
        **({} if forecast.price_per_hour is None else {"cost": cost}),
        "model": ", ".join(parts),
    }


def _memory(forecast: Forecast) -> str:
    """A rank's memory, and the export's where that is more."""
    if forecast.memory is None:
        return ""
    trains, exports = forecast.memory.total, forecast.export or 0
    return size(trains) + (f", export {size(exports)}" if exports > trains else "")


def total_line(forecasts: Iterable[Forecast]) -> str:
    """The sum of a plan's times and costs, and the sources of the times."""
    found = list(forecasts)
    known = [one for one in found if one.seconds is not None]
    if not known:
        return "time unknown: no such run was measured yet"
    parts = [f"~{duration(sum(one.seconds or 0.0 for one in known))} in all"]
    costs = [one.cost for one in known if one.cost is not None]
    parts += [f"cost ~{price(sum(costs))}"] if costs else []
    disk = sum(one.disk or 0 for one in found)
    parts += [f"up to {size(disk)} of disk"] if disk else []
    missing = len(found) - len(known)
    parts += [f"without {missing} {'stage' if missing == 1 else 'stages'} never measured"] if missing else []
    return f"{', '.join(parts)} ({'; '.join(dict.fromkeys(one.source for one in known))})"
