"""A stage's job through the real client, against an API server on this machine; the stage is a shell's line."""

from pathlib import Path
from typing import Any

import pytest
from asked_jobs import SAVES, asked
from local_api import LocalKubernetes
from watching import lines, wait_for

from tasks.jobs import kubernetes
from tasks.jobs.follow import end, outcome
from tasks.jobs.job import Job, JobState
from titanflow.common.errors import ConfigError, NoAnswerError, StageFailed, StageLost
from titanflow.planning.cluster import kubernetes_api

# The server starts a job's processes in a thread of its own.
pytestmark = pytest.mark.slow

JOBSETS = "POST .*/jobsets"


def record(job: str) -> Job:
    return Job(kind="kubernetes", name=job, id=job, fingerprint="f")


def submit(folder: Path, program: str, **settings: Any) -> str:
    return kubernetes.submit(["sh", "-c", program], asked(folder, **settings))


def reaches(job: str, folder: Path, phase: str) -> JobState:
    return wait_for(lambda: (found := kubernetes.state(record(job), folder)).phase == phase and found, phase)


def is_ready(folder: Path) -> None:
    wait_for(lambda: "ready" in lines(folder / "pretrain.log"), "the stage")


def told(job: str, state: JobState, folder: Path) -> str:
    """The message of the error that a job's end is."""
    with pytest.raises((StageFailed, ConfigError)) as error:
        outcome(record(job), state, "pretrain", folder)
    return f"{type(error.value).__name__}: {error.value}"


def test_a_job_runs_and_ends(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, "echo $PET_RDZV_ID; exit 0", nodes=2)
    assert reaches(job, folder, "ended") == JobState("ended", "COMPLETED", status=0)
    name = job.removesuffix(".default")
    assert lines(folder / "pretrain.log") == [name]
    assert kubernetes.find(job) == job
    assert f"name: {name}\n" in (folder / "job.yaml").read_text()
    # Finished jobs go after a day.
    del cluster.jobsets[name]
    assert kubernetes.find(job) == ""
    assert kubernetes.state(record(job), folder) == JobState("ended", "COMPLETED", status=0)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("exit 3", "StageFailed: pretrain ended with exit status 3"),
        ("kill -KILL $$", "StageLost: pretrain was killed by SIGKILL"),
        ("kill -TERM $$", "StageCutShort: pretrain: job .* was told to end"),
    ],
)
def test_an_exit_status_is_the_stage_s_own(cluster: LocalKubernetes, folder: Path, program: str, expected: str) -> None:
    job = submit(folder, program)
    found = told(job, reaches(job, folder, "ended"), folder)
    kind, _, message = expected.partition(": ")
    assert found.startswith(kind)
    assert message.partition(".*")[0] in found
    assert message.partition(".*")[2] in found


def test_the_first_of_several_pods_to_fail_is_the_cause(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, f'if [ "$JOB_COMPLETION_INDEX" = 1 ]; then echo broken; exit 5; fi; {SAVES}', nodes=2)
    state = reaches(job, folder, "ended")
    assert (state.reason, state.status) == ("FAILED", 5)
    found = told(job, state, folder)
    assert "ended with exit status 5" in found
    # The log of a node alone ends up in the stage's, once.
    assert "The log of node 1:\n    broken" in found
    assert not list(folder.glob("*.node-*.log"))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("EvictionByEvictionAPI", "was evicted from a node (as it is said)"),
        ("PreemptionByScheduler", "was preempted by another job (as it is said)"),
        ("DeletionByTaintManager", "lost a node (as it is said)"),
        ("TerminationByKubelet", "was ended by a node that shuts down, or lacks memory or disk (as it is said)"),
        ("OfAnotherKind", "was disrupted by the cluster (as it is said)"),
    ],
)
def test_a_pod_that_the_cluster_ends_may_save(
    cluster: LocalKubernetes, folder: Path, reason: str, expected: str
) -> None:
    job = submit(folder, SAVES, nodes=2)
    is_ready(folder)
    cluster.evict(reason, "as it is said")
    state = reaches(job, folder, "ended")
    assert "saved" in lines(folder / "pretrain.log")
    found = told(job, state, folder)
    assert found.startswith("StageCutShort")
    assert expected in found
    # Pods that were deleted say nothing any more; their job does.
    cluster.jobsets[job.removesuffix(".default")].pods.clear()
    assert kubernetes.state(record(job), folder).reason == "PodFailurePolicy"


def test_a_job_that_reaches_its_time_limit_saves_and_goes_on(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, SAVES, active_deadline_seconds=3600)
    is_ready(folder)
    (jobset,) = cluster.jobsets.values()
    jobset.failure = ("DeadlineExceeded", "Job was active longer than specified deadline")
    found = told(job, reaches(job, folder, "ended"), folder)
    assert "saved" in lines(folder / "pretrain.log")
    assert found.startswith("StageCutShort")
    assert "reached its time limit (Job was active longer than specified deadline)" in found


def test_a_pod_out_of_memory_is_named(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, "kill -KILL $PPID")
    reaches(job, folder, "ended")
    (pod,) = cluster.jobsets[job.removesuffix(".default")].pods
    pod.end_reason = "OOMKilled"
    assert "killed by the kernel, out of memory" in told(job, kubernetes.state(record(job), folder), folder)


@pytest.mark.parametrize(
    ("waits", "shown"),
    [
        (("Unschedulable", "0/2 nodes are available:\n 2 Insufficient nvidia.com/gpu."), "0/2 nodes are available: 2"),
        (("ImagePullBackOff", 'Back-off pulling image "titanflow"'), "Back-off pulling image"),
    ],
)
def test_what_a_job_waits_for_is_shown(
    cluster: LocalKubernetes, folder: Path, waits: tuple[str, str], shown: str
) -> None:
    cluster.waits = waits
    job = submit(folder, "exit 0")
    found = kubernetes.state(record(job), folder)
    assert (found.phase, found.reason) == ("waiting", waits[0])
    assert shown in found.message
    cluster.let_start()
    assert reaches(job, folder, "ended").status == 0


def test_a_job_waits_in_its_queue(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.suspended = True
    job = submit(folder, "exit 0", queue="lab")
    found = kubernetes.state(record(job), folder)
    assert (found.phase, found.reason, found.message) == ("waiting", "Suspended", "queue lab hasn't let it start")


def test_what_keeps_pods_from_being_created_is_shown(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.waits = ("Unschedulable", "")
    job = submit(folder, "exit 0")
    cluster.jobsets[job.removesuffix(".default")].pods.clear()
    cluster.warnings.append("Error creating: pods is forbidden: exceeded quota: gpus")
    found = kubernetes.state(record(job), folder)
    assert (found.phase, found.reason) == ("waiting", "no pods yet")
    assert "exceeded quota" in found.message


def test_a_cancel_lets_the_stage_save_and_ends_when_its_pods_have(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, SAVES, nodes=2)
    is_ready(folder)
    end(record(job), folder)
    assert "saved" in lines(folder / "pretrain.log")
    assert cluster.pods() == []
    assert kubernetes.state(record(job), folder).reason == "CANCELLED"
    assert Job.of(folder) == record(job).model_copy(update={"ended": True})
    kubernetes.cancel(record(job))


def test_a_job_that_does_not_end_is_killed(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    is_ready(folder)
    end(record(job), folder, seconds=0)
    assert cluster.pods() == []


def test_a_job_that_somebody_deletes_was_cancelled(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, SAVES)
    is_ready(folder)
    kubernetes.cancel(record(job))
    assert kubernetes.state(record(job), folder).message in ("it is being deleted", "")
    found = told(job, reaches(job, folder, "ended"), folder)
    assert found.startswith("StageFailed")
    assert "was cancelled" in found


@pytest.mark.parametrize("fault", ["drop", "truncate", "fail"])
def test_an_answer_that_is_lost_makes_no_second_job(cluster: LocalKubernetes, folder: Path, fault: str) -> None:
    if fault == "fail":
        cluster.fail(JOBSETS, 503)
    else:
        getattr(cluster, fault)(JOBSETS)
    job = submit(folder, "echo once")
    assert list(cluster.jobsets) == [job.removesuffix(".default")]
    reaches(job, folder, "ended")
    assert lines(folder / "pretrain.log") == ["once"]


def test_a_flow_that_never_got_an_answer_finds_its_job(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.drop(JOBSETS, times=1)
    cluster.fail(JOBSETS, 500, times=9)
    with pytest.raises(NoAnswerError, match="didn't take job"):
        submit(folder, SAVES)
    assert kubernetes.find(kubernetes.name(asked(folder))) == f"{next(iter(cluster.jobsets))}.default"


def test_an_old_job_of_the_same_name_goes_first_and_saves_nothing(cluster: LocalKubernetes, folder: Path) -> None:
    old = submit(folder, SAVES.replace("'echo", "'sleep 5; echo"), fingerprint="other")
    is_ready(folder)
    new = submit(folder, "echo new")
    assert new == old
    reaches(new, folder, "ended")
    assert lines(folder / "pretrain.log") == ["ready", "new"]
    # A finished one, too: its folder was set aside.
    assert submit(folder, "echo again") == old
    reaches(new, folder, "ended")
    assert lines(folder / "pretrain.log")[-1] == "again"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_job_goes_on_while_its_api_gives_no_answer(cluster: LocalKubernetes, folder: Path, status: int) -> None:
    job = submit(folder, SAVES)
    cluster.fail("GET .*", status)
    with pytest.raises(NoAnswerError, match="can't be asked"):
        kubernetes.state(record(job), folder)
    assert kubernetes.state(record(job), folder).phase == "running"


def test_a_cluster_that_does_not_know_jobsets_says_nothing_of_one(cluster: LocalKubernetes, folder: Path) -> None:
    job = submit(folder, SAVES)
    cluster.has_jobset = False
    with pytest.raises(NoAnswerError, match="page not found"):
        kubernetes.find(job)


def test_an_api_that_is_gone_gives_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalKubernetes() as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig(tmp_path / "kubeconfig")))
    kubernetes_api.client.cache_clear()
    with pytest.raises(NoAnswerError, match="doesn't answer"):
        kubernetes.state(record("titanflow-pretrain-1.default"), tmp_path)


def test_a_silent_api_has_a_deadline(cluster: LocalKubernetes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "ANSWER_SECONDS", (0.5, 0.5))
    cluster.slow("GET .*")
    with pytest.raises(NoAnswerError, match="timed out"):
        kubernetes.state(record("titanflow-pretrain-1.default"), folder)


def test_what_the_cluster_refuses_is_a_failure_not_a_wait(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.forbidden.add("create jobsets")
    with pytest.raises(StageFailed, match="Kubernetes refuses the job: jobsets is forbidden") as error:
        submit(folder, "exit 0")
    assert not isinstance(error.value, StageLost)


def test_a_secret_reaches_the_stage_and_stands_nowhere(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.secrets["hub"] = {"HF_TOKEN": "hf_only_in_the_cluster"}
    job = submit(folder, '[ "$(echo "$HF_TOKEN" | rev)" = retsulc_eht_ni_ylno_fh ]', secrets=["hub"])
    assert reaches(job, folder, "ended").status == 0
    assert not any("only_in_the_cluster" in path.read_text() for path in folder.iterdir())
