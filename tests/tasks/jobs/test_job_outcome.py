from pathlib import Path

import pytest

from tasks.jobs.follow import outcome
from tasks.jobs.job import Job, JobState
from titanflow.common.errors import StageCutShort, StageFailed, StageLost
from titanflow.runs.contract import StageRun
from titanflow.runs.results import PublishResult, write_result

JOB = Job(kind="slurm", name="titanflow-publish-1", id="7", fingerprint="f")
REPORT = """\
Root Cause (first observed failure):
[0]:
  time      : 2026-11-29_20:04:36
  host      : {host}
  rank      : {rank} (local_rank: 0)
  exitcode  : {status} (pid: 636)
"""


def ended(folder: Path, reason: str, status: int | None = 1, log: str = "") -> None:
    (folder / "publish.log").write_text(log)
    outcome(JOB, JobState("ended", reason, status=status), "publish", folder)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("TIMEOUT", "reached its time limit"),
        ("PREEMPTED", "was preempted"),
        ("NODE_FAIL", "lost a node"),
    ],
)
def test_what_the_cluster_did_is_no_fault_of_the_stage(tmp_path: Path, reason: str, told: str) -> None:
    with pytest.raises(StageCutShort, match=f"job 7 {told}"):
        ended(tmp_path, reason)


def test_a_job_that_somebody_cancelled_is_not_started_again(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="job 7 was cancelled") as error:
        ended(tmp_path, "CANCELLED", 0)
    assert not isinstance(error.value, StageLost)


def test_a_stage_that_saved_because_it_was_told_to_goes_on(tmp_path: Path) -> None:
    log = REPORT.format(host="node1", rank=0, status=143) + REPORT.format(host="node2", rank=1, status=143)
    with pytest.raises(StageCutShort, match="was told to end, by its time limit or for another job"):
        ended(tmp_path, "FAILED", 1, log)


@pytest.mark.parametrize(
    ("ran", "limit", "told", "remedy"),
    [
        # The job is told 120 s before its end, and up to 60 s earlier.
        (121, 300, r"by its time limit \(it ran for 2 min 1 s of 5 min 0 s\)", "raise launcher.slurm.time"),
        (119, 300, r"for another job or by somebody \(it ran for 1 min 59 s", "lower checkpoint.interval"),
        (None, None, "by its time limit or for another job;", "lower checkpoint.interval"),
    ],
)
def test_a_job_that_was_told_to_end_says_why_and_what_would_help(tmp_path: Path, ran, limit, told, remedy) -> None:
    launcher = {"kind": "slurm", "slurm": {"save_seconds": 120}}
    config = {"launcher": launcher}
    StageRun(stage="publish", experiment="e", run="r", folder=tmp_path, config=config).write()
    (tmp_path / "publish.log").write_text(REPORT.format(host="node1", rank=0, status=143))
    state = JobState("ended", "FAILED", status=1, ran=ran, limit=limit)
    with pytest.raises(StageCutShort, match=told) as error:
        outcome(JOB, state, "publish", tmp_path)
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        ("slurm", "TIMEOUT", "raise launcher.slurm.time"),
        ("slurm", "NODE_FAIL", "lower checkpoint.interval"),
        ("kubernetes", "DeadlineExceeded", "raise launcher.kubernetes.active_deadline_seconds"),
        ("kubernetes", "EvictionByEvictionAPI", "lower checkpoint.interval"),
    ],
)
def test_what_helps_against_a_cluster_s_way_to_end_a_job(tmp_path: Path, kind: str, reason: str, remedy: str) -> None:
    job = Job(kind=kind, name="j.lab", id="7" if kind == "slurm" else "j.lab", fingerprint="f")
    with pytest.raises(StageCutShort) as error:
        outcome(job, JobState("ended", reason, status=1), "publish", tmp_path)
    assert remedy in error.value.remedy


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_nodes_reports_the_cause_is_the_one_that_was_not_told_to_end(tmp_path: Path, first: int) -> None:
    reports = [REPORT.format(host="node1", rank=0, status=-15), REPORT.format(host="node2", rank=1, status=2)]
    with pytest.raises(StageFailed, match="ended with exit status 2") as error:
        ended(tmp_path, "FAILED", 1, reports[first] + reports[1 - first])
    assert not isinstance(error.value, StageLost)


def test_memory_that_ran_out_on_a_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="killed by the kernel, out of memory"):
        ended(tmp_path, "OUT_OF_MEMORY", 1, REPORT.format(host="node1", rank=0, status=-9))


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-node1: error: StepId=1.0 exceeded memory limit (323571712 > 52428800), being killed",
        "srun: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Detected 2 oom-kill event(s) in StepId=7.0.",
    ],
)
def test_memory_that_slurm_found_too_much_is_named_though_the_job_only_failed(tmp_path: Path, line: str) -> None:
    with pytest.raises(StageFailed, match=r"killed by Slurm, out of memory.*or raise launcher\.slurm\.mem") as error:
        ended(tmp_path, "FAILED", -9, line)
    assert not isinstance(error.value, StageLost)


def test_a_node_whose_processes_were_killed_is_named_and_the_stage_is_started_again(tmp_path: Path) -> None:
    line = "srun: error: node2: task 1: Killed\nsrun: launch/slurm: _step_signal: Terminating StepId=13.0"
    with pytest.raises(StageLost, match="was killed by SIGKILL on node2"):
        ended(tmp_path, "FAILED", -9, line)


def test_a_job_of_which_nothing_is_known_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(StageLost, match="nobody knows how job 7 ended"):
        ended(tmp_path, "FORGOTTEN", None)


def test_a_finished_stage_has_its_result(tmp_path: Path) -> None:
    result = PublishResult(target="folder", location="here")
    write_result(tmp_path, result)
    (tmp_path / "publish.log").touch()
    assert outcome(JOB, JobState("ended", "COMPLETED", status=0), "publish", tmp_path) == result
