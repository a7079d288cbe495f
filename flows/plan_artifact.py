"""The plan in Prefect's UI: which stages will run, of what is STALE what changed, and what they will take."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from tasks.results import markdown
from titanflow.forecast.table import forecast_rows, total_line
from titanflow.plan import Plan
from titanflow.plan_view import plan_markdown


def show_plan(plan: Plan) -> None:
    """Leaves the plan and its forecast as a markdown artifact; a UI that can't be reached costs no run."""
    sections = [f"## Plan of {plan.experiment} / {plan.run}", f"`{plan.folder}`", plan_markdown(plan)]
    if rows := forecast_rows(plan.stages):
        total = total_line(stage.forecast for stage in plan.stages if stage.forecast is not None)
        get_run_logger().info("forecast: %s", total)
        sections += ["### Forecast", total, markdown(rows)]
    try:
        create_markdown_artifact("\n\n".join(sections), key="plan", description=f"{plan.experiment} {plan.run}")
    except Exception as error:
        get_run_logger().warning("the plan's artifact can't be made (%s)", error)
