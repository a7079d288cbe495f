"""The plan in Prefect's UI: which stages run, why one is STALE, and what they will take."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from tasks.ui.results import markdown
from titanflow.planning.forecast.table import forecast_rows, total_line
from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import plan_markdown


def show_plan(plan: Plan) -> None:
    sections = [f"## Plan of {plan.experiment} / {plan.run}", f"`{plan.folder}`", plan_markdown(plan)]
    if rows := forecast_rows(plan.stages):
        total = total_line(stage.forecast for stage in plan.stages if stage.forecast is not None)
        get_run_logger().info("forecast: %s", total)
        sections += ["### Forecast", total, markdown(rows)]
    leave_markdown("\n\n".join(sections), "plan", f"{plan.experiment} {plan.run}")


def leave_markdown(text: str, key: str, description: str) -> None:
    try:
        create_markdown_artifact(text, key=key, description=description)
    # Whatever the API, its client or the network raises: a missing artifact must not end a run.
    except Exception as error:
        get_run_logger().warning("the artifact %r can't be made (%s)", key, error)
