"""What every stage's task does: return the stored result, or start the process, follow it, and record its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, State

from tasks.during.evaluator import During, scored_beside
from tasks.jobs.fetch import fetch_from_hub
from tasks.jobs.follow import left_job, run_job
from tasks.jobs.slurm import NoAnswerError
from tasks.process.device_lock import device_lock
from tasks.process.launch import launch
from tasks.process.outcome import resumes
from tasks.ui.artifacts import Logger
from tasks.ui.labels import task_run_name
from tasks.ui.progress import Progress
from tasks.ui.results import HELD_BACK, gate_lines, headline, held_back
from tasks.ui.watcher import watcher
from titanflow.common.errors import StageCutShort, StageLost
from titanflow.planning.begin import begin_stage, record_start
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.checkpoints import saved_so_far
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult, read_result

# The plan decides what is cached, by what is on disk; Prefect only remembers that something ran once.
AWAY_SECONDS = 3600.0
"""How long a scheduler may be away before a stage fails: an upgrade takes minutes."""
ASK_AGAIN_SECONDS = 10.0
Answer = TypeVar("Answer")

stage_task = partial(task, task_run_name=task_run_name, cache_policy=NO_CACHE, persist_result=False)


def run_stage(plan: StagePlan, manifest: Manifest, secrets: Callable[[], dict[str, str]] = dict) -> StageResult | State:
    """Runs one stage; if it is CACHED, or the gate holds its model back, it ends in a state of that name.

    ``secrets`` returns the part of the process's environment that nothing records; it is called only if one starts.
    After a StageLost Prefect calls this again (:mod:`tasks.retries`).
    """
    logger = get_run_logger()
    attempt = task_run.run_count or 1
    if plan.state == "CACHED":
        result = read_result(plan.run.folder)
        logger.info("%s CACHED: %s (%s)", plan.stage, headline(result), plan.reason)
        watcher().ends(plan.stage, result)
        return Completed(name="Cached", message=plan.reason, data=result)
    # An attempt that ended before it began changed nothing in the folder, which may still hold what other inputs made.
    if attempt > 1 and has_begun(plan.run):
        plan = resumed(plan)
    again = f" (attempt {attempt})" if attempt > 1 else ""
    logger.info("%s %s: %s%s", plan.stage, plan.state, plan.reason, again)
    progress = Progress(plan.run, logger)
    try:
        result = _result(plan, manifest, {**plan.env, **secrets()}, progress, logger)
    except StageLost as error:
        logger.warning("%s%s", error, again)
        raise
    except Exception:
        raise
    except BaseException:
        # A cancel, a suspension, ^C or SIGTERM, whose state on the server can't say it.
        logger.warning("%s was stopped%s", plan.stage, resumes(plan.run.folder))
        raise
    manifest.record_finish(plan.run, result)
    progress.finish(result)
    for line in gate_lines(result):
        logger.info("gate: %s", line)
    logger.info("%s finished: %s", plan.stage, headline(result))
    if reason := held_back([result]):
        return Completed(name=HELD_BACK, message=reason, data=result)
    return result


def _result(
    plan: StagePlan, manifest: Manifest, environment: dict[str, str], progress: Progress, logger: Logger
) -> StageResult:
    """Starts the stage where its launcher says, and follows it to its end."""
    run = plan.run
    job = _answered(lambda: left_job(run, logger.info), progress.waits)
    silent_since: float | None = None
    while True:
        if job is None:
            if aside := begin_stage(plan):
                what = "what it made later" if plan.state == "EXTEND" else "the attempt before, with its log,"
                logger.info("%s: %s is in %s", plan.stage, what, aside)
            record_start(plan, manifest, str(flow_run.id or ""))
        if not plan.is_job:
            with device_lock(run, progress.waits), scored_beside(plan, environment, logger) as during:
                return _launched(plan, environment, progress, during)
        if job is None:
            fetch_from_hub(plan, environment)
        begun_at = saved_so_far(run.folder)
        try:
            return run_job(plan, environment, job, progress, progress.waits)
        except NoAnswerError as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > AWAY_SECONDS:
                raise
            # Nobody knows whether the job was taken: once there is an answer, it is looked for by its name.
            progress.waits(f"{error}: the stage's job is looked for, or submitted, when there is one")
            time.sleep(ASK_AGAIN_SECONDS)
            job, plan = _answered(lambda: left_job(run, logger.info), progress.waits), resumed(plan)
            continue
        except StageCutShort as error:
            # A job that saves nothing before its end would be submitted for ever.
            if saved_so_far(run.folder) == begun_at:
                nothing = f"got no further than {begun_at}" if begun_at else "saved nothing"
                hint = f"another job like this one would end so, too: {error.remedy}"
                raise StageCutShort(f"{error}\n    it {nothing}, and {hint}", error.remedy) from error
            logger.warning("%s", error)
        plan, job, silent_since = resumed(plan), None, None


def _launched(plan: StagePlan, environment: dict[str, str], progress: Progress, during: During | None) -> StageResult:
    """Runs the stage's process on this machine, and scores its checkpoints beside it."""

    def look(records: list[dict[str, Any]]) -> None:
        progress(records)
        if during is not None:
            during()

    result = launch(plan.stage, plan.run.folder, plan.command, environment, look)
    if during is not None:
        during.finish()
    return result


def _answered(ask: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """What a scheduler answers, however long it is away; it is asked now and then.

    Raises:
        NoAnswerError: after an hour.
    """
    began = time.monotonic()
    while True:
        try:
            return ask()
        except NoAnswerError as error:
            if time.monotonic() - began > AWAY_SECONDS:
                raise
            say(f"{error}: it is asked again")
        time.sleep(ASK_AGAIN_SECONDS)


def has_begun(run: StageRun) -> bool:
    """Whether a stage's folder is of this stage, from the same inputs."""
    begun = StageRun.of(run.folder)
    return begun is not None and begun.fingerprint == run.fingerprint


def resumed(plan: StagePlan) -> StagePlan:
    """The plan of another attempt: in the same folder, from what the last one saved."""
    saved = saved_so_far(plan.run.folder)
    return replace(plan, state="RESUME", reason=f"from {saved}" if saved else "nothing is saved yet")
