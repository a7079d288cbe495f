import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.forecast.memory import Memory
from titanflow.planning.forecast.table import forecast_cells, forecast_rows, forecast_table, total_line
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun

MEMORY = Memory(1 << 30, 1 << 30, 2 << 30, 0, 0, 0, 0, 0, 0, False)
TRAINING = Forecast("a", 1, 1_400_000, 1_400_000, 1_100_000, 10**12, MEMORY, 59.2, 19e3, "measured on run main")
UNKNOWN = Forecast("b")


def shown(*forecasts: Forecast | None) -> list[str]:
    run = StageRun(stage="pretrain", experiment="tiny", run="main", folder=Path("/"))
    stages = [StagePlan("pretrain", "RUN", "new", run, forecast=forecast) for forecast in forecasts]
    console = Console(width=120, file=io.StringIO())
    console.print(forecast_table(stages))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_training() -> None:
    assert forecast_cells(TRAINING) == {
        "time": "~59 s",
        "memory": "4.0 GiB",
        "model": "1.4 M parameters, 1.1 M tokens",
    }
    adapters = Forecast("a", parameters=8 * 10**9, trained_parameters=42 * 10**6, price_per_hour=2.0)
    assert forecast_cells(adapters) == {
        "time": "—",
        "memory": "",
        "cost": "—",
        "model": "8 B parameters, 42 M trained",
    }


def test_an_export_that_takes_more_than_the_training_is_shown() -> None:
    assert forecast_cells(replace(TRAINING, export=3 << 30))["memory"] == "4.0 GiB"
    assert forecast_cells(replace(TRAINING, export=5 << 30))["memory"] == "4.0 GiB, export 5.0 GiB"


def test_rows_for_a_table_in_the_ui() -> None:
    run = StageRun(stage="pretrain", experiment="tiny", run="main", folder=Path("/"))
    stages = [StagePlan("pretrain", "RUN", "new", run, forecast=one) for one in (TRAINING, None)]
    (row,) = forecast_rows(stages)
    assert (row["stage"], row["time"], row["from"]) == ("pretrain", "~59 s", "measured on run main")
    assert "cost" not in row


def test_the_sum_of_a_plan() -> None:
    priced = Forecast("c", seconds=3600.0, price_per_hour=2.0, cost=2.0, source="from peak FLOPs at 40%")
    line = (
        "~1 h 0 min in all, cost ~2.00, without 1 stage never measured (measured on run main; from peak FLOPs at 40%)"
    )
    assert total_line([TRAINING, UNKNOWN, priced]) == line
    assert total_line([UNKNOWN]) == "time unknown: no such run was measured yet"


def test_the_table() -> None:
    header, row, total = shown(TRAINING)
    assert header.split() == ["forecast", "time", "memory"]
    assert row.split()[:5] == ["pretrain", "~59", "s", "4.0", "GiB"]
    assert total == "~59 s in all (measured on run main)"
    assert shown(None) == []
