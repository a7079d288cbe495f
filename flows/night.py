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
LATE = timedelta(hours=1)
"""How late a night may begin if missed ones aren't caught up with: an earlier run may have taken long."""
DONE = ("published", "finished")
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
    if not catch_up and present - scheduled > LATE:
        late = timedelta(seconds=round((present - scheduled).total_seconds()))
        return f"{late} h late; with nightly.catch_up: true it would run"
    return ""


def scheduled_day() -> str:
    """The day that this flow run was scheduled for, in the time zone of its deployment's schedule."""
    zone: tzinfo = UTC
    if deployment.id:
        with get_client(sync_client=True) as client:
            zone = _time_zone(client, client.read_flow_run(flow_run.id))
    return _day(flow_run.scheduled_start_time, zone)


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


def _left_out(night: Night, folder: Path, reason: str, has_begun: bool) -> State[Any]:
    if not has_begun:
        night.end(folder, "skipped", reason)
    get_run_logger().warning("night %s is left out: %s", night.date, reason)
    show_nights(folder.parent)
    return Completed(name=SKIPPED, message=reason)


def _at_work(night: Night, folder: Path, config: Experiment, work: Callable[[], Summary]) -> Summary:
    state: NightState = "failed"
    message = ""
    try:
        summary = work()
        state = "published" if summary.published else "held back" if summary.held_back else "finished"
        message = summary.held_back
        return summary
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
                ended.end(folder, state, message)
            _afterwards(folder, config)


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
