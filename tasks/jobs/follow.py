"""A stage as a job of a cluster: submitted once, followed to its end, and ended with the flow that waits for it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.jobs import kubernetes, slurm
from tasks.jobs.job import Job, JobState, status_file
from tasks.process.held_signals import held_signals
from tasks.process.metrics_tail import MetricsTail
from tasks.process.outcome import read_outcome, resumes, stage_config
from titanflow.common.errors import (
    ConfigError,
    NoAnswerError,
    Problem,
    StageCutShort,
    StageFailed,
    StageLost,
    StageStopped,
    TitanflowError,
)
from titanflow.common.quantities import duration
from titanflow.config.checks.processes.slurm import EARLY_SECONDS
from titanflow.planning.cluster.resources import Resources, resources
from titanflow.planning.launch import by_hand
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE, StageRun
from titanflow.runs.results import StageResult

KINDS = {"slurm": slurm, "kubernetes": kubernetes}
"""A kind of cluster is a file with ``submit``, ``state``, ``find`` and ``cancel``; ``name`` is what ``find`` looks for,
``by_hand`` the command that a person would submit with. Its words for how it ends a job through no fault of the stage
are in ``CUT_SHORT``, what helps against some of them in ``REMEDIES``, and against its time limit in ``MORE_TIME``; the
exit statuses of a job without the stage's folder in ``NOT_SHARED``."""
POLL_SECONDS = 2.0
"""How often the metrics are read: no file system tells what another machine wrote."""
STATE_SECONDS = 5.0
"""How often the scheduler is asked, which tells nobody by itself."""
ENDING_SECONDS = 0.5
"""How often it is asked about a job that is about to end."""
SAVE_SECONDS = 20.0
"""How long a job may save after a cancel. Prefect's worker kills the flow after 30 s."""
SAVE_MORE_OFTEN = "lower checkpoint.interval, so that a job has saved something when it is ended"
END_SECONDS = 120.0
"""How long a cancelled job may take to end: a node that doesn't answer holds it until it is given up."""


def left_job(run: StageRun, say: Callable[[str], None]) -> Job | None:
    """The job that an earlier flow left in a stage's folder, living or finished meanwhile.

    One that makes something else is ended first; one that failed unseen counts for nothing.
    """
    job = _noted(run.stage, run.folder)
    if job is None:
        return None
    kind = KINDS[job.kind]
    is_ours = job.fingerprint == run.fingerprint and (run.config.get("launcher") or {}).get("kind") == job.kind
    has_ended = kind.state(job, run.folder).phase == "ended"
    if has_ended and not (is_ours and (run.folder / RESULT_FILE).exists()):
        _note_end(job, run.folder)
        return None
    job.write(run.folder)
    if is_ours:
        found = "has finished" if has_ended else "is still there"
        say(f"job {job.id} of an earlier flow {found}: it is followed, not submitted again")
        return job
    say(f"job {job.id} of an earlier flow makes something else: it saves and ends")
    end(job, run.folder)
    return None


def _noted(stage: str, folder: Path) -> Job | None:
    """The job that a stage's folder notes, with its id; None if there is none, or if a flow has seen its end.

    Raises:
        NoAnswerError: the scheduler has to be asked for its id, and doesn't answer.
    """
    job = Job.of(folder)
    if job is None or job.ended or not job.is_of(stage, folder):
        return None
    # The flow may have ended between the submission and the note of its id.
    found = job.id or KINDS[job.kind].find(job.name)
    return job.model_copy(update={"id": found}) if found else None


def run_job(
    plan: StagePlan,
    environment: Mapping[str, str],
    job: Job | None,
    on_metrics: Callable[[list[dict[str, Any]]], None],
    say: Callable[[str], None],
) -> StageResult:
    """Submits a stage's job, or takes the one that is there, and returns its result; however the wait ends, so does the
    job, unless the scheduler doesn't say whether it has it: see :func:`end_noted`."""
    folder = plan.run.folder
    try:
        # An interrupt between the submission and the assignment would leave the job behind.
        with held_signals():
            if job is None:
                job, needed = _begun(plan, environment)
                job = _submitted(job, plan.command, needed)
                job.write(folder)
        say(f"job {job.id} of {job.kind}")
        state = _ended(job, folder, MetricsTail(folder / METRICS_FILE), on_metrics, say)
    except Exception:
        if job is not None and job.id:
            end(job, folder)
        raise
    except BaseException:
        # A job that doesn't end makes no StageLost of a stop, for which the stage would be started again.
        end_noted(plan.stage, folder, say)
        raise
    _note_end(job, folder)
    return outcome(job, state, plan.stage, folder)


def _begun(plan: StagePlan, environment: Mapping[str, str]) -> tuple[Job, Resources]:
    """The record of a stage's job, which lies in the stage's folder from before the submission, and has no id yet; and
    what the job needs."""
    run, name = plan.run, str(plan.run.config["launcher"]["kind"])
    kind, before = KINDS[name], Job.of(plan.run.folder)
    attempt = before.attempt + 1 if before else 1
    needed = resources(run, environment, attempt)
    with needed.log.open("a", encoding="utf-8") as file:
        log_start = file.tell()
        file.write(f"$ {by_hand(kind.by_hand(needed), {})}\n")
    # A scheduler that was set up anew gives its ids away again.
    for status in run.folder.glob(status_file("*", run.folder).name):
        status.unlink(missing_ok=True)
    job = Job(kind=name, name=kind.name(needed), attempt=attempt, fingerprint=run.fingerprint, log_start=log_start)
    job.write(run.folder)
    return job, needed


def _submitted(job: Job, command: Sequence[str], needed: Resources) -> Job:
    """A stage's job with its id, once it is submitted.

    Raises:
        StageFailed: the scheduler refuses the job.
        NoAnswerError: it doesn't answer; whether it has the job is seen later, by the job's name.
    """
    kind = KINDS[job.kind]
    living = kind.find(job.name)
    try:
        found = kind.submit(command, needed)
    except NoAnswerError:
        raise
    except StageFailed:
        # A command that fails may have submitted the job all the same.
        found = kind.find(job.name)
        if found in ("", living):
            raise
    return job.model_copy(update={"id": found})


def outcome(job: Job, state: JobState, stage: str, folder: Path) -> StageResult:
    """The result of an ended job, or the error that says how it ended.

    Raises:
        StageCutShort: the scheduler ended it; it goes on in another job.
        StageFailed: the stage failed, or somebody cancelled the job.
    """
    log = folder / f"{stage}.log"
    if not log.exists():
        log.touch()
    _gather(job, folder, log)
    kind = KINDS[job.kind]
    more = f" ({state.message})" if state.message else ""
    if ended := kind.CUT_SHORT.get(state.reason):
        told = f"{stage}: job {job.id} {ended}{more}{resumes(folder)}. Its log: {log}"
        raise StageCutShort(told, kind.REMEDIES.get(state.reason, SAVE_MORE_OFTEN))
    if state.reason == "CANCELLED":
        raise StageFailed(f"{stage}: job {job.id} was cancelled{resumes(folder)}. Its log: {log}")
    if state.status is None:
        raise StageLost(f"{stage}: nobody knows how job {job.id} ended{more}{resumes(folder)}. Its log: {log}")
    if state.status in kind.NOT_SHARED:
        hint = "it has to lie on storage that all nodes and this machine share, at the same path"
        raise ConfigError(Problem(f"the nodes of job {job.id} don't see {folder}", "workspace", hint=hint))
    try:
        # Slurm has a signal of its own for it, 125.
        memory_ran_out = state.reason == "OUT_OF_MEMORY"
        status = -signal.SIGKILL if memory_ran_out else state.status
        return read_outcome(stage, folder, status, log, job.log_start, memory_ran_out)
    except StageStopped as error:
        told, remedy = _told_to_end(state, folder, kind.MORE_TIME)
        raise StageCutShort(f"{stage}: job {job.id} {told}{resumes(folder)}. Its log: {log}", remedy) from error


def _told_to_end(state: JobState, folder: Path, more_time: str) -> tuple[str, str]:
    """Why a job was told to save and end, as far as it can be known, and what helps if it saved nothing."""
    if (is_at_limit := _ended_at_its_limit(state, folder)) is None:
        return "was told to end, by its time limit or for another job", f"{more_time}; or {SAVE_MORE_OFTEN}"
    ran = f"(it ran for {duration(state.ran or 0)} of {duration(state.limit or 0)})"
    if is_at_limit:
        return f"was told to end, by its time limit {ran}", more_time
    return f"was told to end, for another job or by somebody {ran}", SAVE_MORE_OFTEN


def _ended_at_its_limit(state: JobState, folder: Path) -> bool | None:
    """Whether a job that was told to save was told so by its time limit; None if nobody knows."""
    settings = (stage_config(folder).get("launcher") or {}).get("slurm")
    if not settings or state.ran is None or state.limit is None:
        return None
    return state.limit - state.ran <= settings["save_seconds"] + EARLY_SECONDS


def _gather(job: Job, folder: Path, log: Path) -> None:
    """Puts the logs of single nodes, where a kind writes such, at the end of the stage's own."""
    for part in sorted(folder.glob(f"job-{job.id}.node-*.log")):
        with log.open("ab") as whole, part.open("rb") as said:
            whole.write(f"The log of node {part.name.removesuffix('.log').rpartition('-')[2]}:\n".encode())
            shutil.copyfileobj(said, whole)
        part.unlink()


def end(job: Job, folder: Path, seconds: float = SAVE_SECONDS) -> None:
    """Ends a job, which may save first, and returns when it has ended and ``job.json`` says so.

    Raises:
        StageLost: it doesn't end, or its scheduler doesn't answer.
    """
    began = time.monotonic()
    _cancel(job, now=_state(job, folder).phase == "waiting")
    while (phase := _state(job, folder).phase) != "ended":
        waited = time.monotonic() - began
        if waited > END_SECONDS:
            raise StageLost(f"job {job.id} doesn't end, {END_SECONDS:g} s after its cancel")
        # Again and again, since the scheduler may not have answered.
        if waited > seconds or phase == "waiting":
            _cancel(job, now=True)
        time.sleep(ENDING_SECONDS)
    _note_end(job, folder)


@contextlib.contextmanager
def jobs_end_with(runs: Sequence[StageRun], say: Callable[[str], None]) -> Iterator[None]:
    """Ends the jobs of a flow's stages if the block is left by a stop: a cancel, a suspension, ^C or SIGTERM.

    :func:`run_job` ends the job that it follows. This is for the rest of the flow: before an earlier flow's job is
    looked for, and while nobody knows whether the scheduler took one. A stop is no ``Exception``.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        for run in runs:
            end_noted(run.stage, run.folder, say)
        raise


def end_noted(stage: str, folder: Path, say: Callable[[str], None]) -> None:
    """Ends the job that a stage's folder notes, if it is still there, and ``say``s what became of it."""
    try:
        job = _noted(stage, folder)
        if job is not None and KINDS[job.kind].state(job, folder).phase != "ended":
            say(f"{stage}: job {job.id} is still there: it saves and ends")
        if job is not None:
            end(job, folder)
    except TitanflowError as error:
        say(f"{stage}: its job may still be there ({error}); the next run of the folder looks for it, and follows it")


def _note_end(job: Job, folder: Path) -> None:
    # On a full disk the note is lost, and the next flow asks the scheduler; how the stage ended is said all the same.
    with contextlib.suppress(OSError):
        job.model_copy(update={"ended": True}).write(folder)


def _cancel(job: Job, now: bool) -> None:
    # The scheduler doesn't answer, or the job has ended meanwhile.
    with contextlib.suppress(StageFailed):
        KINDS[job.kind].cancel(job, now)


def _ended(
    job: Job,
    folder: Path,
    tail: MetricsTail,
    on_metrics: Callable[[list[dict[str, Any]]], None],
    say: Callable[[str], None],
) -> JobState:
    said, asked = "", -STATE_SECONDS
    status = status_file(job.id, folder)
    while True:
        # The job's script notes its end at once; the scheduler is asked less often, as it has many to answer.
        if status.exists() or time.monotonic() - asked >= STATE_SECONDS:
            asked = time.monotonic()
            state = _state(job, folder)
            if (told := _told(job, state)) != said:
                said = told
                say(told)
            if state.phase == "ended":
                on_metrics(tail.read())
                return state
        on_metrics(tail.read())
        time.sleep(ENDING_SECONDS if status.exists() else POLL_SECONDS)


def _state(job: Job, folder: Path) -> JobState:
    try:
        return KINDS[job.kind].state(job, folder)
    except NoAnswerError as error:
        return JobState("unknown", str(error))


def _told(job: Job, state: JobState) -> str:
    more = f": {state.message}" if state.message else ""
    if state.phase == "waiting":
        begins = f", expected to begin at {state.begins}" if state.begins else ""
        why = f": {state.reason}" if state.reason else ""
        return f"job {job.id} waits{why}{more}{begins}"
    if state.phase == "unknown":
        return f"{state.reason}: the job goes on, and is asked for again"
    return f"job {job.id} runs{more}" if state.phase == "running" else f"job {job.id} ended: {state.reason}{more}"
