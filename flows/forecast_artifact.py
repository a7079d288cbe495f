"""The forecast in Prefect's UI: what the stages that are to run will take."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from tasks.results import markdown
from titanflow.forecast.table import forecast_rows, total_line
from titanflow.plan import Plan


def show_forecast(plan: Plan) -> None:
    """Leaves the forecast as a markdown artifact, where anything is to run; a UI that can't be reached costs no run."""
    rows = forecast_rows(plan.stages)
    if not rows:
        return
    total = total_line(stage.forecast for stage in plan.stages if stage.forecast is not None)
    get_run_logger().info("forecast: %s", total)
    text = f"## Forecast of {plan.experiment} / {plan.run}\n\n{total}\n\n{markdown(rows)}"
    try:
        create_markdown_artifact(text, key="forecast", description=f"{plan.experiment} {plan.run}")
    except Exception as error:
        get_run_logger().warning("the forecast's artifact can't be made (%s)", error)
