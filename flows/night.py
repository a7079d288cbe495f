"""A night inside a flow run: its day, whether it is run or skipped, and what is done at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, State

from flows.plan_artifact import leave_markdown
from flows.run_plan import Summary
from titanflow.common.file_lock import held
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parameter_settings
from titanflow.nightly.night import Night, NightState
from titanflow.nightly.retention import remove_old
from titanflow.nightly.table import markdown_table, read_nights
from titanflow.planning.plan import check_run_name
from titanflow.runs.manifest import now

SKIPPED = "Skipped"
DONE_BEFORE = "Done before"
"""The state of a night that an earlier run of its folder, as one by hand, left nothing to do."""
LATE = timedelta(hours=1)
"""How late a night may begin if missed ones aren't caught up with: an earlier run may have taken long."""
DONE = ("published", "proposed", "held back", "finished")
NIGHTS_LOCK = ".nights.lock"
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]

Work = Callable[[str, Mapping[str, Any]], Summary]
"""Plans and runs, given the run's name and the settings over the config."""


def run_night(
    experiment: str, configs: str | None, run: str | None, settings: Mapping[str, Any], work: Work
) -> Summary | State[Any]:
    """Runs a night, or skips it: then the flow run ends completed, in the state "Skipped".

    A night that was interrupted goes on however late it is. At its end, whatever its state, nights that are too old are
    removed and the table of all becomes an artifact.
    """
    day = scheduled_day()
    settings = {"nightly.date": day, **settings}
    config = load_experiment(experiment, configs, parameter_settings(settings))
    name = check_run_name(run or day)
    runs = config.workspace.resolve() / config.exp_name
    folder = runs / name
    before = Night.read(folder)
    has_begun = before is not None and bool(before.began)
    reason = "" if has_begun else why_left_out(config.spec.nightly.catch_up)
    with held(runs, NIGHTS_LOCK) as mine:
        if not mine:
            reason = "another night is still running"
        if reason:
            return _left_out(Night(date=day, run=name), folder, reason, has_begun)
        return _at_work(Night(date=day, run=name), folder, config, lambda: work(name, settings))


def why_left_out(catch_up: bool) -> str:
    """Why the night of this flow run is skipped; empty if it is run."""
    scheduled, present = flow_run.scheduled_start_time or clock(), clock()
    if newer := _newer_nights(scheduled, present):
        return f"{newer} newer {'nights are' if newer > 1 else 'night is'} due: the newest is run"
    if not catch_up and present - scheduled > LATE and (wait := present - _turn(scheduled, present)) > LATE:
        late = timedelta(seconds=round(wait.total_seconds()))
        return f"{late} h late; with nightly.catch_up: true it would run"
    return ""


def scheduled_day() -> str:
    """The day that this flow run was scheduled for, in the time zone of its deployment's schedule."""
    return _day(flow_run.scheduled_start_time, scheduled_zone())


def scheduled_zone() -> tzinfo:
    """The time zone of this flow run's schedule; UTC if it has none."""
    if not deployment.id:
        return UTC
    with get_client(sync_client=True) as client:
        return _time_zone(client, client.read_flow_run(flow_run.id))


def day_of(client: SyncPrefectClient, run: FlowRun) -> str:
    """The same of any run of a deployment, which needn't have begun."""
    return _day(run.expected_start_time, _time_zone(client, run))


def _day(when: datetime | None, zone: tzinfo) -> str:
    return f"{(when or clock()).astimezone(zone):%Y-%m-%d}"


def clock() -> datetime:
    return datetime.now(UTC)


def _time_zone(client: SyncPrefectClient, run: FlowRun) -> tzinfo:
    """The time zone of a run's schedule, else of its deployment's first, else UTC."""
    if run.deployment_id is None:
        return UTC
    schedules = client.read_deployment(run.deployment_id).schedules
    key = run.idempotency_key or ""
    own = [one for one in schedules if str(one.id) in key] or schedules
    named = getattr(own[0].schedule, "timezone", None) if own else None
    return ZoneInfo(named) if named else UTC


def _newer_nights(scheduled: datetime, present: datetime) -> int:
    """How many of the deployment's unfinished runs are due and were scheduled for later than this one."""
    if not deployment.id:
        return 0
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=scheduled, before_=present),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=wanted)
    later = [run for run in found if run.expected_start_time and run.expected_start_time > scheduled]
    return sum(str(run.id) != str(flow_run.id) for run in later)


def _turn(scheduled: datetime, present: datetime) -> datetime:
    """When this night's turn came: at its time, or at the end of the last night of another experiment since then."""
    wanted = FlowRunFilter(end_time=FlowRunFilterEndTime(after_=scheduled, before_=present))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=wanted)
    # Of the same deployment are the nights that were missed, and end at once.
    others = [run for run in found if run.parameters.get("night") and str(run.deployment_id) != str(deployment.id)]
    return max([scheduled, *(run.end_time for run in others if run.end_time)])


def _left_out(night: Night, folder: Path, reason: str, has_begun: bool) -> State[Any]:
    if not has_begun:
        night.end(folder, "skipped", reason)
    get_run_logger().warning("night %s is left out: %s", night.date, reason)
    show_nights(folder.parent)
    return Completed(name=SKIPPED, message=reason)


def _at_work(night: Night, folder: Path, config: Experiment, work: Callable[[], Summary]) -> Summary | State[Any]:
    state: NightState = "failed"
    message = done_at = ""
    try:
        summary = work()
        state = _state(summary)
        message, done_at = summary.held_back, summary.done_at
        return _done_before(summary, state) if done_at else summary
    except Exception as error:
        message = str(error)
        raise
    except BaseException:
        # Stopped from outside: the night may continue later, and there is little time now.
        state = ""
        raise
    finally:
        if state:
            ended = Night.read(folder) or night
            # A night that was done before, and had nothing left to do, keeps its record.
            if ended.state not in DONE:
                ended.end(folder, state, message, done_at)
            _afterwards(folder, config)


def _state(summary: Summary) -> NightState:
    if summary.published:
        return "published"
    if summary.proposed:
        return "proposed"
    return "held back" if summary.held_back else "finished"


def _done_before(summary: Summary, state: NightState) -> State[Any]:
    """What a night says that found nothing to do: otherwise it would look like one that did."""
    when = datetime.fromisoformat(summary.done_at).astimezone(scheduled_zone())
    found = summary.held_back and f"held back: {summary.held_back}"
    message = f"done at {when:%Y-%m-%d %H:%M %Z}, by an earlier run: {summary.told or found or state}"
    get_run_logger().info("night %s was %s", summary.run, message)
    return Completed(name=DONE_BEFORE, message=message, data=summary)


def _afterwards(folder: Path, config: Experiment) -> None:
    """Retention and the table; a failure of either costs no night its result."""
    logger = get_run_logger()
    try:
        retention = remove_old(folder.parent, config.spec.nightly.keep, folder.name)
        if retention.removed:
            logger.info("removed nights: %s", ", ".join(retention.removed))
        for name, reason in retention.kept.items():
            logger.info("kept night %s: %s", name, reason)
        removed = f"Removed: {', '.join(retention.removed)}" if retention.removed else ""
    except Exception as error:
        removed = f"Old nights can't be removed: {error}"
        logger.warning(removed)
    show_nights(folder.parent, removed)


def show_nights(runs: Path, note: str = "") -> None:
    try:
        table = markdown_table(read_nights(runs))
    except Exception as error:
        get_run_logger().warning("the table of nights can't be made (%s)", error)
        return
    leave_markdown(f"## {runs.name}\n\n{table}\n\n{note}", "nights", f"Nights of {runs.name}, {now()}")
