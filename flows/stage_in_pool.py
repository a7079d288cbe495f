"""A task that runs a stage in another work pool: starts it there, follows it, and reads its result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import task_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, State

from flows.parameters.run_request import RunRequest
from flows.pods import pod_variables, why_no_pod
from tasks.process.metrics_tail import MetricsTail
from tasks.process.process import GRACE_SECONDS
from tasks.ui.labels import LOST_LABEL, stage_name
from tasks.ui.standing import Standing
from tasks.ui.watcher import NOBODY, watcher
from titanflow.common import errors
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem, StageFailed, StageLost, TitanflowError
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.results import StageResult, read_result

FLOW = "run-stage"
POLL_SECONDS = 0.5
CANCEL_SECONDS = GRACE_SECONDS + 5.0
"""How long to wait for a cancelled stage. After 30 s Prefect's worker kills the waiting flow."""
LEFT_SECONDS = 120.0
"""How long to wait for a stage that a killed run left behind."""
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]


def check_pools(plan: Plan) -> None:
    """Refuses a plan with stages in pools that no worker works for, before anything is started."""
    problems = []
    for stage in plan.stages:
        if not stage.pool or stage.state == "CACHED" or not (reason := _why_not(stage)):
            continue
        key = f"{stage.stage}.launcher.pool"
        origin = stage.run.origins.get("launcher.pool", "")
        hint = (
            f"start one on its machine, with PREFECT_API_URL of the run's server: "
            f"titanflow serve --pool {stage.pool}; or unset launcher.pool"
        )
        problems.append(Problem(f"found {stage.pool!r}: {reason}", key, origin, "a work pool with a worker", hint))
    if problems:
        raise ConfigError(problems)


def _why_not(stage: StagePlan) -> str:
    server = redact(PREFECT_API_URL.value() or "")
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{FLOW}/{stage.pool}")
            pool = client.read_work_pool(stage.pool)
        except ObjectNotFound:
            return f"no such pool runs stages at {server}"
    if pool.status != WorkPoolStatus.READY:
        return f"no worker of the pool is online at {server}"
    return why_no_pod(stage, pool)


def _variables(plan: StagePlan) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        return pod_variables(plan, client.read_work_pool(plan.pool))


def in_pool_name() -> str:
    """The task run's name: ``evaluate 2 tasks in pool small``."""
    plan = task_run.parameters["plan"]
    return f"{stage_name(plan.run)} in pool {plan.pool}"


@task(name="stage-in-pool", task_run_name=in_pool_name, cache_policy=NO_CACHE, persist_result=False)
def stage_in_pool(plan: StagePlan, request: RunRequest) -> StageResult:
    """Runs a stage in its pool and reads its result from the shared storage; a cancel cancels it there."""
    end_left(plan)
    get_run_logger().info("%s %s: %s", plan.stage, plan.state, plan.reason)
    parameters = {
        **request._asdict(),
        "settings": dict(request.settings),
        "stage": plan.stage,
        "folder": str(plan.run.folder),
        "fingerprint": plan.run.fingerprint,
        "attempt": task_run.run_count or 1,
    }
    name = f"{plan.run.experiment}/{plan.run.run} {plan.stage}"
    # timeout=0: its own wait looks only every five seconds, and leaves the run behind at a cancel.
    flow_run = run_deployment(
        f"{FLOW}/{plan.pool}",
        parameters=parameters,
        flow_run_name=name,
        timeout=0,
        tags=[_tag(plan)],
        job_variables=_variables(plan),
    )
    assert isinstance(flow_run, FlowRun)
    try:
        with get_client(sync_client=True) as client:
            # Only this run's retries start it again, even if it was lost before it began.
            client.update_flow_run_labels(flow_run.id, {LOST_LABEL: -1})
        state = _ended(flow_run, on_look=_look(plan))
    except ObjectNotFound:
        # Its own process sees that, too: it saves and ends.
        deleted = f"{plan.stage}'s run in pool {plan.pool} was deleted"
        raise StageFailed(f"{deleted}; the next run goes on from what it saved") from None
    except BaseException:
        with contextlib.suppress(Exception):
            _cancel(flow_run, CANCEL_SECONDS)
        raise
    if not state.is_completed():
        raise failure(plan, state)
    result = read_result(plan.run.folder)
    watcher().ends(plan.stage, result)
    return result


def failure(plan: StagePlan, state: State[Any]) -> TitanflowError:
    """The error that ended a stage elsewhere, by its flow run's last state."""
    message = state.message or state.name or ""
    kind = getattr(errors, state.name or "", None)
    if isinstance(kind, type) and issubclass(kind, TitanflowError):
        return kind(message)
    if state.is_crashed():
        return StageLost(f"{plan.stage} was lost in pool {plan.pool}: {message}")
    if state.is_cancelled():
        return StageFailed(f"{plan.stage} was cancelled in pool {plan.pool}; the next run goes on from what it saved")
    return StageFailed(f"{plan.stage} failed in pool {plan.pool}: {message}")


def end_left(plan: StagePlan) -> None:
    """Ends what a killed run left at work in the stage's folder."""
    with get_client(sync_client=True) as client:
        left = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[_tag(plan)]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)),
            ),
        )
    for flow_run in left:
        get_run_logger().info("%s is still running: it saves and stops", flow_run.name)
        if not _cancel(flow_run, LEFT_SECONDS):
            raise StageLost(f"{plan.stage} of an earlier attempt is still running in pool {plan.pool}")


def _tag(plan: StagePlan) -> str:
    return f"folder:{plan.run.folder}"


def _look(plan: StagePlan) -> Callable[[], object]:
    """What to do at each look at the stage: whoever watches the run sees its records, which nobody else reads here."""
    if watcher() is NOBODY:
        return lambda: None
    standing, tail = Standing(plan.run, f"in the work pool {plan.pool}"), MetricsTail(plan.run.folder / METRICS_FILE)
    watcher().begins(standing)
    return lambda: standing.add(tail.read(), time.monotonic())


def _ended(flow_run: FlowRun, seconds: float | None = None, on_look: Callable[[], object] = lambda: None) -> State[Any]:
    """The run's last state, or its present one after so many ``seconds``."""
    began = time.monotonic()
    while True:
        on_look()
        # A server may be unreachable for a while without harm to the stage.
        with contextlib.suppress(httpx.TransportError), get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run.id).state
            assert state is not None
            if state.is_final() or (seconds is not None and time.monotonic() - began > seconds):
                return state
        time.sleep(POLL_SECONDS)


def _cancel(flow_run: FlowRun, seconds: float) -> bool:
    """Cancels a run and waits until its stage has saved; returns whether it ended."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Cancelling(message="The run that it belongs to was ended."))
    return _ended(flow_run, seconds).is_final()
