"""Jobs of Kubernetes: JobSets, through the official client.

A job's id is ``<name>.<namespace>``. It is known before the job is there, so that the same job can't be made twice: the
API refuses a second one of its name. Facts: Kubernetes' pages "Pod Lifecycle", "Disruptions", "Jobs" and "Garbage
Collection"; the JobSet API v1alpha2. The states are asked for, not watched, so that no version of a resource grows old.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.jobs.job import Job, JobState, noted_status
from titanflow.common.errors import NoAnswerError, StageFailed, StageLost
from titanflow.common.files import write_text_atomically
from titanflow.planning.cluster import kubernetes_api as api
from titanflow.planning.cluster.jobset import (
    JOBSET_LABEL,
    MANIFEST_FILE,
    QUEUE_LABEL,
    REPLICATED_JOB,
    as_yaml,
    identity,
    manifest,
)
from titanflow.planning.cluster.resources import NO_FOLDER, Resources

NOT_SHARED = (NO_FOLDER,)
DISRUPTED = "PodFailurePolicy"
"""What a job says whose pods were disrupted, once the pods are gone."""
CUT_SHORT = {
    "PreemptionByScheduler": "was preempted by another job",
    "DeletionByTaintManager": "lost a node",
    "DeletionByPodGC": "lost a node",
    "EvictionByEvictionAPI": "was evicted from a node",
    "TerminationByKubelet": "was ended by a node that shuts down, or lacks memory or disk",
    DISRUPTED: "was disrupted by the cluster",
    "DeadlineExceeded": "reached its time limit",
}
"""How Kubernetes ends a job through no fault of the stage: the reasons of a pod's and a job's conditions."""
MORE_TIME = "raise launcher.kubernetes.active_deadline_seconds, which has to hold the job's wait for its nodes, too"
REMEDIES = {"DeadlineExceeded": MORE_TIME}
"""What helps a stage whose jobs all end in this way before anything is saved."""
LIVING = ("Pending", "Running", "Unknown")
SUBMISSIONS = 3
"""How often a job is submitted while the API doesn't answer: the name is the same each time."""
GONE_SECONDS = 120.0
"""How long an old job of the same name may take to go."""
ASK_AGAIN_SECONDS = 1.0
AT_ONCE_SECONDS = 1
"""The grace of a pod that is killed; with 0, Kubernetes would forget it before it has ended."""
TOLD_TO_END = 143
"""The exit status of a process that SIGTERM ended."""
SUBMISSION = "titanflow/submission"
"""The annotation that tells which call of :func:`submit` made a job."""
SHOWN = 300
"""How many letters of the cluster's own words are shown."""


def name(resources: Resources) -> str:
    """What a stage's job is found by, from before its submission."""
    return identity(resources)


def by_hand(resources: Resources) -> list[str]:
    """The command that submits a job's manifest once more."""
    return ["kubectl", "create", "-f", str(resources.folder / MANIFEST_FILE)]


def submit(command: Sequence[str], resources: Resources) -> str:
    """Submits a stage's job, if it isn't there already, and returns its id.

    Raises:
        StageFailed: the cluster refuses the job.
        NoAnswerError: it doesn't answer; whether the job is there will be seen by its name.
    """
    body, job = manifest(command, resources), identity(resources)
    # Told apart are a job that was taken though its answer was lost, and an old one of the same name.
    body["metadata"]["annotations"][SUBMISSION] = submission = uuid.uuid4().hex
    write_text_atomically(resources.folder / MANIFEST_FILE, as_yaml(body))
    refused: api.ApiError | None = None
    for _ in range(SUBMISSIONS):
        try:
            api.create_jobset(body)
            return job
        except api.ApiError as error:
            refused = error
        if refused.status == 409:
            found = _jobset(job)
            if found is not None and found["metadata"].get("annotations", {}).get(SUBMISSION) == submission:
                return job
            _remove(job)
        elif refused.status:
            raise StageFailed(f"Kubernetes refuses the job: {refused}") from refused
        else:
            time.sleep(ASK_AGAIN_SECONDS)
    raise NoAnswerError(f"Kubernetes didn't take job {job}: {refused}") from refused


def state(job: Job, folder: Path) -> JobState:
    """What is known of a job now.

    Raises:
        NoAnswerError: Kubernetes doesn't answer.
    """
    return _state(job.id, folder)


def _state(job: str, folder: Path) -> JobState:
    jobset, pods = _jobset(job), _pods(job)
    alive = [pod for pod in pods if pod.status.phase in LIVING]
    if jobset is None and not alive:
        # Finished jobs are kept for a day; one that is missing was deleted.
        noted = noted_status(job, folder)
        return JobState("ended", "COMPLETED" if noted == 0 else "CANCELLED", status=noted)
    conditions = _true_conditions((jobset or {}).get("status", {}).get("conditions", []))
    if jobset is None or "deletionTimestamp" in jobset["metadata"]:
        return JobState("running", message="it is being deleted")
    if not alive and "Completed" in conditions:
        return JobState("ended", "COMPLETED", status=0)
    if not alive and "Failed" in conditions:
        return _failed(job, folder, pods)
    if "Suspended" in conditions:
        queue = jobset["metadata"].get("labels", {}).get(QUEUE_LABEL)
        return JobState("waiting", "Suspended", f"queue {queue} hasn't let it start" if queue else "")
    waiting = [pod for pod in alive if pod.status.phase == "Pending"]
    if waiting:
        return min((_waiting(pod) for pod in waiting), key=lambda state: state.reason == "ContainerCreating")
    if not pods:
        return JobState("waiting", "no pods yet", _last_warning(job))
    # A node that is lost may never end its pods, which only an administrator can tell.
    ending = next((pod for pod in alive if pod.metadata.deletion_timestamp or pod.status.phase == "Unknown"), None)
    return JobState("running", message=f"its pod on node {ending.spec.node_name} is being ended" if ending else "")


def find(name: str) -> str:
    """The id of the job of that name; empty if there is none."""
    return name if _jobset(name) is not None else ""


def cancel(job: Job, now: bool = False) -> None:
    """Deletes a job. Its pods may save, for ``save_seconds``, unless it must end ``now``."""
    _delete(job.id, now)


def _delete(job: str, now: bool = False) -> None:
    name, namespace = job.split(".")
    # The job stays there until its pods have ended.
    _answer(api.jobsets, "delete", namespace, name, propagation_policy="Foreground")
    if now:
        options = {"label_selector": f"{JOBSET_LABEL}={name}", "grace_period_seconds": AT_ONCE_SECONDS}
        _answer(api.core, "delete_collection_namespaced_pod", namespace, **options)


def _failed(job: str, folder: Path, pods: Sequence[Any]) -> JobState:
    noted = noted_status(job, folder)
    for pod in pods:
        for condition in pod.status.conditions or []:
            if condition.type == "DisruptionTarget" and condition.status == "True":
                reason = condition.reason if condition.reason in CUT_SHORT else DISRUPTED
                return JobState("ended", reason, _short(condition.message), status=noted)
    word, message = _failure_of_job(job)
    if word in CUT_SHORT:
        return JobState("ended", word, message, status=noted)
    ends = [end for pod in pods if (end := _container(pod, "terminated")) and end.exit_code]
    if any(end.reason == "OOMKilled" for end in ends):
        return JobState("ended", "OUT_OF_MEMORY", status=-9)
    # A pod that fails ends the others, in the same second.
    first = min(ends, key=lambda end: (end.exit_code == TOLD_TO_END, str(end.finished_at)), default=None)
    return JobState("ended", "FAILED", message, status=_status(first.exit_code) if first else noted)


def _status(code: int) -> int:
    """A shell's exit status; negative for the signal that ended it."""
    return code if code <= 128 else 128 - code


def _waiting(pod: Any) -> JobState:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return JobState("waiting", condition.reason or "not scheduled", _short(condition.message))
    waits = _container(pod, "waiting")
    return JobState("waiting", waits.reason or "", _short(waits.message)) if waits else JobState("waiting", "Pending")


def _container(pod: Any, what: str) -> Any:
    """A pod's container, ``waiting`` or ``terminated``; None if it is neither."""
    statuses = pod.status.container_statuses or []
    return next((getattr(status.state, what) for status in statuses if status.state), None)


def _failure_of_job(job: str) -> tuple[str, str]:
    """Why the job below a JobSet failed, which it still says when its pods are gone."""
    name, namespace = job.split(".")
    found = _answer(api.jobs, "list_namespaced_job", namespace, label_selector=f"{JOBSET_LABEL}={name}")
    for item in found.items if found else ():
        for condition in item.status.conditions or []:
            if condition.type == "Failed" and condition.status == "True":
                return condition.reason or "", _short(condition.message)
    return "", ""


def _last_warning(job: str) -> str:
    """What keeps a job's pods from being created: a quota, an account."""
    name, namespace = job.split(".")
    of_job = f"involvedObject.name={name}-{REPLICATED_JOB}-0,type=Warning"
    with contextlib.suppress(api.ApiError):
        found = api.core("list_namespaced_event", namespace, field_selector=of_job).items
        return _short(found[-1].message) if found else ""
    return ""


def _remove(job: str) -> None:
    """Deletes an old job, of a folder that was set aside or removed, and returns when it is gone.

    It may not save: the new job would take what lies in the folder then for its own.
    """
    _delete(job, now=True)
    began = time.monotonic()
    while _jobset(job) is not None or any(pod.status.phase in LIVING for pod in _pods(job)):
        if (waited := time.monotonic() - began) > GONE_SECONDS:
            raise StageLost(f"an old job {job} doesn't go, {waited:.0f} s after it was deleted")
        time.sleep(ASK_AGAIN_SECONDS)


def _jobset(job: str) -> dict[str, Any] | None:
    name, namespace = job.split(".")
    return _answer(api.jobsets, "get", namespace, name)


def _pods(job: str) -> list[Any]:
    name, namespace = job.split(".")
    found = _answer(api.core, "list_namespaced_pod", namespace, label_selector=f"{JOBSET_LABEL}={name}")
    return list(found.items) if found else []


def _answer(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the API answers; None for what isn't there."""
    try:
        return call(*arguments, **options)
    except api.ApiError as error:
        # A server that doesn't know JobSets at all, for now or any more, says nothing of this one.
        if error.status == 404 and "page not found" not in str(error):
            return None
        # A job isn't given up for credentials that have run out.
        raise NoAnswerError(f"Kubernetes can't be asked: {error}") from error


def _true_conditions(conditions: Sequence[dict[str, Any]]) -> set[str]:
    return {condition["type"] for condition in conditions if condition["status"] == "True"}


def _short(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
