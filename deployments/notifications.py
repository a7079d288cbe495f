"""Notices of the nights: Prefect automations that call a webhook block.

They run on the server, so that a night whose process was killed, or that never started, is reported as well.
``titanflow serve`` makes them for the experiment of each night that it serves; ``titanflow nights EXPERIMENT --notify``
makes them on the server that ``PREFECT_API_URL`` names.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from deployments.flow_runs.queued_runs import QUEUED
from deployments.nightly import nightly_name
from flows.announce import EVENTS, RESOURCE
from flows.server.configured_server import check_server, configured_url
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment

Kind = Literal["failed", "not started", "published", "proposed", "held back"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NOT_STARTED_AFTER = timedelta(hours=1)

OF_THE_FLOW_RUN = """{
  "experiment": {{ (flow_run.parameters.experiment or "") | tojson }},
  "run": {{ flow_run.name | tojson }},
  "flow_run": {{ (flow_run.id | string) | tojson }},
  "scheduled": {{ (flow_run.expected_start_time | string) | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ (flow_run.state.message or "") | tojson }},
  "link": {{ (flow_run | ui_url or "") | tojson }},
  "wandb": "",
  "prefect": {{ (flow_run | ui_url or "") | tojson }}
}"""
"""What a team's chat gets; ``link`` is the flow run, or the model. Both kinds have the same keys."""
OF_THE_MODEL = """{
  "experiment": {{ event.payload.experiment | tojson }},
  "run": {{ flow_run.name | tojson }},
  "flow_run": {{ (flow_run.id | string) | tojson }},
  "scheduled": {{ (flow_run.expected_start_time | string) | tojson }},
  "state": {{ event.payload.state | tojson }},
  "message": {{ event.payload.message | tojson }},
  "link": {{ event.payload.link | tojson }},
  "wandb": {{ event.payload.wandb | tojson }},
  "prefect": {{ (flow_run | ui_url or "") | tojson }}
}"""


def make_notices(experiment: Experiment) -> list[str]:
    """Makes the automations of an experiment's own deployment, on the server that ``PREFECT_API_URL`` names.

    Raises:
        ConfigError: no server is named or answers, or it lacks the webhook block.
    """
    expected = "the address of the server that runs the nights"
    if not (url := configured_url()):
        raise ConfigError(Problem("found nothing", "PREFECT_API_URL", expected=expected))
    check_server(url, f"set it to {expected}")
    return ensure_notifications(experiment, nightly_name(experiment))


def ensure_notifications(experiment: Experiment, deployment: str) -> list[str]:
    """Makes or updates the automations of a night's deployment, removes those not asked for; returns their names."""
    notify = experiment.spec.notify
    wanted = notify.on if notify.webhook_block else []
    with get_client(sync_client=True) as client:
        block = _webhook(client, experiment) if wanted else None
        for kind in KINDS:
            name = automation_name(deployment, kind)
            found = client.read_automations_by_name(name)
            if block is not None and kind in wanted:
                automation = _automation(deployment, kind, block)
                if found:
                    client.update_automation(found[0].id, automation)
                else:
                    client.create_automation(automation)
            for one in found if kind not in wanted else found[1:]:
                client.delete_automation(one.id)
    return [automation_name(deployment, kind) for kind in KINDS if kind in wanted]


def automation_name(deployment: str, kind: Kind) -> str:
    return f"titanflow: {deployment}, {kind}"


def _webhook(client: SyncPrefectClient, experiment: Experiment) -> UUID:
    name = experiment.spec.notify.webhook_block or ""
    try:
        return client.read_block_document_by_name(name, "webhook", include_secrets=False).id
    except ObjectNotFound as error:
        hint = "make one in Prefect's UI (Blocks, Webhook), with the header Content-Type: application/json"
        origin = experiment.origins.get("notify.webhook_block", "")
        problem = Problem(f"the server has no webhook block {name!r}", "notify.webhook_block", origin, hint=hint)
        raise ConfigError(problem) from error


def _automation(deployment: str, kind: Kind, block: UUID) -> AutomationCore:
    payload = OF_THE_MODEL if kind in EVENTS else OF_THE_FLOW_RUN
    return AutomationCore(
        name=automation_name(deployment, kind),
        description="Made by titanflow from the experiment's `notify`; the next deploy overwrites it.",
        trigger=_trigger(deployment, kind),
        actions=[CallWebhook(block_document_id=block, payload=payload)],
    )


def _trigger(deployment: str, kind: Kind) -> EventTrigger:
    of_deployment = {"prefect.resource.role": "deployment", "prefect.resource.name": deployment}
    of_run = {"prefect.resource.id": "prefect.flow-run.*"}
    if kind == "failed":
        expect = {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}
        return EventTrigger(expect=expect, match=of_run, match_related=of_deployment, posture=Posture.Reactive)
    if kind == "not started":
        return EventTrigger(
            after={"prefect.flow-run.Late", f"prefect.flow-run.{QUEUED}"},
            # Any event: the run starts, is cancelled or waits for its slot.
            expect={"prefect.flow-run.*"},
            match=of_run,
            match_related=of_deployment,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            within=NOT_STARTED_AFTER,
        )
    match = {"prefect.resource.id": f"{RESOURCE}.*"}
    return EventTrigger(expect={EVENTS[kind]}, match=match, match_related=of_deployment, posture=Posture.Reactive)
