"""Events about a published, proposed or refused model, for automations: ``titanflow.published`` and the like.

Prefect has events of its own for a flow run that fails or crashes, but none that tells a newly published model from one
published before.
"""

from __future__ import annotations

from prefect.events import emit_event

from titanflow.planning.stage_plan import Plan
from titanflow.runs.results import PublishResult, StageResult
from titanflow.runs.tracker_record import newest_url

RESOURCE = "titanflow.runs"
"""The events' resource is ``titanflow.runs.<experiment>.<run>``."""
EVENTS = {
    "published": "titanflow.published",
    "proposed": "titanflow.proposed",
    "held back": "titanflow.held-back",
}
"""The event of each status of which somebody may want to hear."""


def told(result: PublishResult) -> str:
    """Why a model was published, proposed or held back; of a first one the gate says that it compared with nothing."""
    return result.gate.reason if result.gate is not None else f"no gate was asked for ({result.stage}.gate)"


def announce(plan: Plan, results: list[StageResult]) -> None:
    """Reports what the publish stage did just now; nothing if it was cached or had nothing to do."""
    for stage, result in zip(plan.stages, results, strict=True):
        if not isinstance(result, PublishResult) or stage.state == "CACHED" or result.status not in EVENTS:
            continue
        emit_event(
            EVENTS[result.status],
            resource={
                "prefect.resource.id": f"{RESOURCE}.{plan.experiment}.{plan.run}",
                "prefect.resource.name": f"{plan.experiment}/{plan.run}",
            },
            payload={
                "experiment": plan.experiment,
                "run": plan.run,
                "state": result.status,
                "message": told(result),
                "link": result.pull_request or result.location,
                "wandb": newest_url(one.run.folder for one in plan.stages),
            },
        )
