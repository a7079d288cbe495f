import logging
from pathlib import Path

import pytest
from small_plan import TRAINS, small_plan

from flows import forecast_artifact
from flows.forecast_artifact import show_forecast
from titanflow.forecast.forecast import Forecast


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is left in the UI."""
    left: list[str] = []
    monkeypatch.setattr(forecast_artifact, "get_run_logger", lambda: logging.getLogger("flow"))
    monkeypatch.setattr(forecast_artifact, "create_markdown_artifact", lambda text, **_: left.append(text))
    return left


def test_the_forecast_of_what_will_run(tmp_path: Path, artifacts: list[str]) -> None:
    plan = small_plan(tmp_path, pretrain=TRAINS)
    show_forecast(plan)
    assert artifacts == []
    plan.stages[0].forecast = Forecast("like", seconds=90.0, source="measured on run before")
    show_forecast(plan)
    (text,) = artifacts
    assert "~1 min 30 s in all (measured on run before)" in text
    assert "| pretrain |" in text


def test_a_ui_that_can_t_be_reached(tmp_path: Path, artifacts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str, **_: str) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(forecast_artifact, "create_markdown_artifact", fails)
    plan = small_plan(tmp_path, pretrain=TRAINS)
    plan.stages[0].forecast = Forecast("like", seconds=90.0, source="measured")
    show_forecast(plan)
    assert artifacts == []
