"""Stages as jobs of a real Slurm: the same numbers as on one machine, whatever ends a job or its flow."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_runs import ON_ONE_MACHINE, STEPS, ClusterRun
from job_run import PATIENCE
from local_slurm import NODES, LocalSlurm
from tiny_experiment import ROOT, write_tiny_experiment
from watching import wait_for

from titanflow.runs.checkpoints import newest_step
from titanflow.runs.results import PublishResult, TrainResult, read_result

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_tiny_experiment(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(root: Path, slurm: LocalSlurm) -> ClusterRun:
    """Two processes of this machine."""
    run = ClusterRun(slurm, root, "local", ON_ONE_MACHINE)
    subprocess.run(run.command(), check=True, env=run.env, cwd=root, timeout=600)
    return run


@contextmanager
def suspended(slurm: LocalSlurm) -> Iterator[None]:
    """The stages stand still, lest they finish before their next flow is there."""
    processes = slurm.processes()
    for process in processes:
        process.suspend()
    yield
    for process in processes:
        process.resume()


def test_a_run_meets_everything_and_computes_the_same(root: Path, slurm: LocalSlurm, undisturbed: ClusterRun) -> None:
    run = ClusterRun(slurm, root, "cluster")
    stage = run.folder / "pretrain"

    run.start()
    run.trains()
    assert run.signal(signal.SIGINT) == 128 + signal.SIGINT
    assert slurm.processes() == []
    assert newest_step(stage) == run.step()
    assert len(run.jobs()) == 1

    # A flow that is gone leaves its job, which the next flow follows.
    run.start()
    run.trains()
    run.signal(signal.SIGKILL)
    with suspended(slurm):
        run.start()
        run.says("is still there: it is followed, not submitted again")
    assert len(run.jobs()) == 2

    run.trains()
    slurm.output("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    # By what, is known only where Slurm still tells how long the job ran.
    run.says(" was told to end, ")
    run.trains()
    assert [state for _, state in run.jobs()].count("RUNNING") == 1

    slurm.stop_controller()
    slurm.start_controller()
    run.trains()

    slurm.power_off("node2")
    run.says("lost a node; it resumes from step")
    wait_for(lambda: run.jobs()[-1][1] == "PENDING", "a new job, which waits for the node")
    slurm.power_on("node2")

    assert run.wait() == 0, run.output.read_text()[-3000:]
    assert slurm.processes() == []
    assert set(slurm.states().values()) == {"idle"}
    for name, steps in (("pretrain", STEPS), ("sft", 8)):
        assert len(run.losses(name)) == steps
        assert run.losses(name) == undisturbed.losses(name)
    published = read_result(run.folder / "publish")
    assert isinstance(published, PublishResult)
    assert published.status == "published"
    trained = read_result(stage)
    assert isinstance(trained, TrainResult)
    assert trained.step == STEPS


def test_another_run_of_the_same_folder_ends_the_job_of_the_one_before(root: Path, slurm: LocalSlurm) -> None:
    run = ClusterRun(slurm, root, "changed", ("pretrain.training.steps=100000",))
    run.start()
    run.trains()
    run.signal(signal.SIGKILL)
    ((job, state),) = run.jobs()
    assert state == "RUNNING"
    run.settings = (*run.settings, "pretrain.optimizer.lr=0.02", "on_stale=rerun")
    run.start()
    run.says(f"job {job} of an earlier flow makes something else")
    run.trains(5)
    assert [state for _, state in run.jobs()].count("RUNNING") == 1
    run.signal(signal.SIGINT)
    assert slurm.processes() == []


def test_a_job_that_finished_unseen_is_not_submitted_again(root: Path, slurm: LocalSlurm) -> None:
    run = ClusterRun(slurm, root, "unseen", ("pretrain.training.steps=60",))
    run.start()
    run.trains()
    run.signal(signal.SIGKILL)
    wait_for(lambda: (run.folder / "pretrain" / "result.json").exists(), "the end of the job")
    run.start()
    assert run.wait() == 0, run.output.read_text()[-3000:]
    assert [state for _, state in run.jobs()] == ["COMPLETED"]


def test_a_job_that_never_starts_is_shown_and_cancelled(root: Path, slurm: LocalSlurm) -> None:
    run = ClusterRun(slurm, root, "waiting")
    held = slurm.output("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    wait_for(
        lambda: slurm.output("squeue", "--noheader", f"--jobs={held}", "--format=%T") == "RUNNING", "the other job"
    )
    run.start()
    run.says("waits: Resources")
    assert run.signal(signal.SIGINT) == 128 + signal.SIGINT
    assert [state for _, state in run.jobs()] == ["CANCELLED"]
    slurm.output("scancel", held)


def test_a_stop_at_any_moment_leaves_no_job_or_names_it(root: Path, slurm: LocalSlurm) -> None:
    run = ClusterRun(slurm, root, "stopped", ("pretrain.training.steps=100000",))
    record = run.folder / "pretrain" / "job.json"
    run.start()
    # It is there right before the submission.
    wait_for(record.exists, "the submission", PATIENCE)
    assert run.signal(signal.SIGINT) == 128 + signal.SIGINT
    assert [state for _, state in run.jobs()] == ["CANCELLED"]
    assert run.job()["ended"]

    run.start()
    # Nothing was saved: it begins in a new folder.
    wait_for(lambda: record.exists() and run.job()["id"] and not run.job()["ended"], "the next job", PATIENCE)
    run.signal(signal.SIGKILL)
    job = run.job()["id"]
    run.start()
    run.says(f"tiny/stopped in {run.folder}")
    run.signal(signal.SIGINT)
    living = [job for job, state in run.jobs() if state in ("PENDING", "RUNNING")]
    assert living == [] or f"to end it: scancel --name={run.job()['name']} {job}" in run.output.read_text()
    slurm.output("scancel", f"--name={run.job()['name']}")


def test_what_slurm_refuses_is_refused_in_the_plan(root: Path, slurm: LocalSlurm) -> None:
    run = ClusterRun(slurm, root, "refused", ("launcher.slurm.partition=nowhere",))
    done = subprocess.run(
        run.command("plan"),
        env=run.env,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        "error: --set launcher.slurm.partition=nowhere: pretrain, sft, evaluate: launcher.slurm.partition: "
        in done.stderr
    )
    assert done.stderr.count("Slurm wouldn't take the job:") == 1
    assert "invalid partition" in done.stderr.lower()
    assert not run.folder.exists()


def test_a_workspace_that_nodes_do_not_see_is_named(tmp_path: Path, slurm: LocalSlurm) -> None:
    write_tiny_experiment(tmp_path)
    (tmp_path / "runs").mkdir()
    for node in NODES:
        slurm.power_off(node)
        slurm.power_on(node, hidden=tmp_path / "runs")
    run = ClusterRun(slurm, tmp_path, "unseen")
    run.start()
    assert run.wait() == 2
    assert "workspace: the nodes of job" in run.output.read_text()
    assert "don't see" in run.output.read_text()
    for node in NODES:
        slurm.power_off(node)
        slurm.power_on(node)
    slurm.wait_until(lambda: set(slurm.states().values()) == {"idle"}, "idle nodes", 60)


def test_secrets_reach_the_job_and_stand_nowhere(
    root: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os, sys; sys.exit(os.environ['WANDB_API_KEY'][::-1] != 'elif-a-ni-ton')"
    monkeypatch.setitem(slurm.env, "WANDB_API_KEY", "not-in-a-file")
    there = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + SUBMIT.format(folder=root / "secret", program=program)
    done = subprocess.run(
        slurm.inside([sys.executable, "-c", there]), env=slurm.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended COMPLETED 0"
    texts = [path.read_text(errors="replace") for path in (root / "secret").iterdir()]
    assert not any("not-in-a-file" in text for text in [*texts, slurm.output("scontrol", "show", "job")])


SUBMIT = """
import sys, time
from pathlib import Path
from tasks.jobs import slurm
from tasks.jobs.job import Job
from titanflow.planning.cluster.resources import resources
from titanflow.runs.contract import StageRun
folder = Path("{folder}")
folder.mkdir()
settings = dict(partition=None, account=None, qos=None, time=None, gres=None, constraint=None, mem=None,
                container=None, setup=[], export=[], save_seconds=60, extra=[])
launcher = dict(kind="slurm", nnodes=1, nproc_per_node=1, device="auto", slurm=settings)
run = StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config=dict(launcher=launcher))
run.write()
asked = resources(run, {{}})
id = slurm.submit([sys.executable, "-c", {program!r}], asked)
job = Job(kind="slurm", name=asked.name, id=id, fingerprint="")
while (state := slurm.state(job, folder)).phase != "ended":
    time.sleep(0.2)
print(state.phase, state.reason, state.status)
"""
