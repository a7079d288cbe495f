"""The plan in Prefect's UI: which stages will run, and of what is STALE what changed."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from titanflow.plan import Plan
from titanflow.plan_view import plan_markdown


def show_plan(plan: Plan) -> None:
    """Leaves the plan as a markdown artifact; a UI that can't be reached costs no run."""
    text = f"## Plan of {plan.experiment} / {plan.run}\n\n`{plan.folder}`\n\n{plan_markdown(plan)}"
    try:
        create_markdown_artifact(text, key="plan", description=f"{plan.experiment} {plan.run}")
    except Exception as error:
        get_run_logger().warning("the plan's artifact can't be made (%s)", error)
