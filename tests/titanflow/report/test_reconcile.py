from typing import Any

import pytest

from titanflow.report.reconcile import headline, reconcile, table_rows
from titanflow.runs.manifest import StageRecord

FORECAST = {
    "seconds": 50.0,
    "tokens_per_second": 20_000.0,
    "memory": {"total": 1 << 30},
    "devices": 2,
    "price_per_hour": 3.6,
    "cost": 0.1,
    "source": "measured on run main",
}


class Result:
    tokens_per_second = 18_000.0
    peak_memory_bytes = 3 << 29


def record(forecast: dict[str, Any], finished: str = "2026-11-21T09:01:00+00:00") -> StageRecord:
    return StageRecord(fingerprint="f", started="2026-11-21T09:00:00+00:00", finished=finished, forecast=forecast)


def test_a_training_as_it_came() -> None:
    found = reconcile("pretrain", record(FORECAST), Result())
    assert found is not None
    assert (found.expected_seconds, found.seconds) == (50.0, 60.0)
    assert (found.expected_cost, found.cost) == (0.1, pytest.approx(60 * 2 * 3.6 / 3600))
    assert headline([found]) == "forecast 50 s, took 1 min 0 s (pretrain); forecast cost 0.10, was 0.12"
    assert table_rows([found]) == [
        {
            "stage": "pretrain",
            "time": "50 s → 1 min 0 s",
            "tokens/s": "20,000 → 18,000",
            "memory of a rank": "1.0 GiB → 1.5 GiB",
            "cost": "0.10 → 0.12",
            "forecast": "measured on run main",
        }
    ]


def test_what_was_not_known() -> None:
    found = reconcile("evaluate", record({"like": "a", "seconds": None}), object())
    assert found is not None
    assert headline([found]) == ""
    row = table_rows([found])[0]
    assert (row["time"], row["tokens/s"], row["forecast"]) == ("– → 1 min 0 s", "", "none")


def test_what_is_not_finished_or_had_no_forecast() -> None:
    assert reconcile("pretrain", record(FORECAST, finished=""), Result()) is None
    assert reconcile("pretrain", record({}), Result()) is None
