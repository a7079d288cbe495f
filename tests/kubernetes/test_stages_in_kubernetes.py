"""Stages as jobs of Kubernetes: the same numbers as on one machine, whatever ends a job or its flow."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from job_run import JobRun
from local_api import LocalKubernetes
from local_pods import suspend
from tiny_experiment import ROOT, write_tiny_experiment
from watching import alive

from titanflow.runs.checkpoints import newest_step
from titanflow.runs.results import PublishResult, read_result

STEPS = 120

pytestmark = pytest.mark.survival


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_tiny_experiment(folder)
    return folder


def in_cluster(root: Path, api: str, cluster: LocalKubernetes, name: str, *settings: str) -> JobRun:
    cluster.claims.add("shared")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": api,
        "HF_HUB_OFFLINE": "1",
        "KUBECONFIG": str(cluster.kubeconfig(root / f"{name}.kubeconfig")),
    }
    own = ("launcher.kind=kubernetes", "launcher.nnodes=2", "launcher.kubernetes.image=titanflow")
    volumes = f"launcher.kubernetes.volumes={json.dumps({str(root): 'shared'})}"
    return JobRun(root, name, env, (f"pretrain.training.steps={STEPS}", *own, volumes, *settings))


def test_a_run_meets_everything_and_computes_the_same(root: Path, api: str, cluster: LocalKubernetes) -> None:
    run = in_cluster(root, api, cluster, "cluster")
    stage = run.folder / "pretrain"

    run.start()
    run.trains()
    assert run.signal(signal.SIGINT) == 128 + signal.SIGINT
    assert cluster.pods() == []
    assert newest_step(stage) == max(run.losses())
    assert run.job()["attempt"] == 1

    # A flow that is gone leaves its job, which the next flow follows.
    run.start()
    run.trains()
    run.signal(signal.SIGKILL)
    pods = cluster.pods()
    suspend(pods, True)
    run.start()
    run.says("is still there: it is followed, not submitted again")
    suspend(pods, False)
    assert run.job()["attempt"] == 2

    run.trains()
    cluster.waits = ("Unschedulable", "0/2 nodes are available: 2 node(s) were unschedulable.")
    cluster.evict()
    run.says("was evicted from a node (Eviction API: evicting); it resumes from step")
    run.says("waits: Unschedulable: 0/2 nodes are available")
    assert run.job()["attempt"] == 3
    cluster.let_start()

    assert run.wait() == 0, run.output.read_text()[-3000:]
    assert cluster.pods() == []
    # One job more each for the fine-tuning and the evaluation.
    assert sum("POST" in line and line.endswith("/jobsets") for line in cluster.log) >= 5
    published = read_result(run.folder / "publish")
    assert isinstance(published, PublishResult)
    assert published.status == "published"

    local = JobRun(root, "local", run.env, (f"pretrain.training.steps={STEPS}", "launcher.nproc_per_node=2"))
    subprocess.run(local.command(), check=True, env=local.env, cwd=root, capture_output=True)
    for name, steps in (("pretrain", STEPS), ("sft", 8)):
        assert len(run.losses(name)) == steps
        assert run.losses(name) == local.losses(name)


def test_a_job_of_a_changed_run_ends_before_the_next_begins(root: Path, api: str, cluster: LocalKubernetes) -> None:
    run = in_cluster(root, api, cluster, "changed", "pretrain.training.steps=100000", "launcher.nnodes=1")
    run.start()
    run.trains(5)
    run.signal(signal.SIGKILL)
    (pod,) = cluster.pods()
    run.settings = (*run.settings, "pretrain.optimizer.lr=0.02", "on_stale=rerun")
    run.start()
    run.says("of an earlier flow makes something else: it saves and ends")
    # Until then the folder has the losses of the old job.
    run.says(f"job {run.job()['id']} of kubernetes")
    run.trains(5)
    assert pod.process is not None
    assert not alive(pod.process.pid)
    assert len(cluster.pods()) == 1
    run.signal(signal.SIGINT)
    assert cluster.pods() == []


def test_what_kubernetes_refuses_is_refused_in_the_plan(root: Path, api: str, cluster: LocalKubernetes) -> None:
    run = in_cluster(root, api, cluster, "refused")

    def planned(*settings: str) -> tuple[int, str]:
        done = subprocess.run(run.command("plan", *settings), env=run.env, cwd=root, capture_output=True, text=True)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    status, said = planned()
    assert status == 0, said
    assert "as a job of kubernetes, 2 nodes of 1 process without GPUs" in said
    status, said = planned("launcher.kubernetes.namespace=nowhere")
    assert status == 2
    assert 'pretrain.launcher: Kubernetes wouldn\'t take the job: namespaces "nowhere" not found' in said
    status, said = planned("workspace=/elsewhere")
    assert status == 2
    assert (
        f"launcher.kubernetes.volumes: found {root}, and the run's folder is /elsewhere/tiny/refused/pretrain" in said
    )
    cluster.fail("POST .*", 503, times=99)
    status, said = planned()
    assert status == 0
    assert "Kubernetes couldn't be asked: planted 503" in said
    assert not run.folder.exists()
    assert cluster.jobsets == {}
