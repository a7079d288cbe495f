"""A stage as a pod, whose container is a process here: what a cluster does to a pod is done to it.

Prefect's worker for Kubernetes makes the job, on a local API that keeps it; its command runs with its environment.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio.config import kube_config
from lasting_server import lasting_server
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from prefect_kubernetes.worker import KubernetesWorker
from watching import PATIENCE, alive, wait_for

sys.path.append(str(Path(__file__).parents[1] / "flows"))
sys.path.append(str(Path(__file__).parents[1] / "kubernetes"))
from recorded_api import RecordedApi, recorded_api

from deployments.kubernetes_pool import ensure_pods_pool
from deployments.stage_pool import deploy_stages

pytestmark = pytest.mark.survival
ENTRYPOINT = f"{Path(__file__).parent}/small_stage.py:run_stage"


@pytest.fixture(scope="module")
def url(prefect_home):
    with lasting_server(prefect_home) as url:
        yield url


@pytest.fixture
def cluster(url, tmp_path, monkeypatch):
    asked = ["image=titanflow", f"claim_path={tmp_path}", "env.PREFECT_API_URL=http://prefect:4200/api"]
    pods = ensure_pods_pool(url, "pods", asked)
    deploy_stages(url, "pods", pods.folder, ENTRYPOINT, pods.asked)
    for name, value in {**pods.worker_environment, "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    with recorded_api(tmp_path / "kubeconfig") as cluster:
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield cluster


def ask_for(program: str, tmp_path: Path) -> FlowRun:
    """Makes a flow run of a pretraining, as a run with ``launcher.pool`` does."""
    parameters = {"experiment": program, "configs": str(tmp_path), "run": "main", "stage": "pretrain"}
    parameters |= {"settings": {"pretrain.launcher.pool": None}, "fingerprint": "pretrain-1"}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("run-stage/pods")
        parameters["folder"] = str(tmp_path / "run" / "pretrain")
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def pod(cluster: RecordedApi, url: str, log: Path) -> "subprocess.Popen[bytes]":
    """Lets the worker make the next job, and starts its container as a process."""
    known = len(cluster.of("Job"))

    async def submit() -> None:
        async with KubernetesWorker(work_pool_name="pods") as worker:
            await worker.sync_with_backend()
            await worker.get_and_submit_flow_runs()

    def submitted() -> bool:
        asyncio.run(submit())
        return len(cluster.of("Job")) > known

    wait_for(submitted, "the worker to make a job")
    (container,) = cluster.of("Job")[-1]["spec"]["template"]["spec"]["containers"]
    secrets = {secret["metadata"]["name"]: secret["stringData"] for secret in cluster.of("Secret")}
    env: dict[str, Any] = {**os.environ, **{one["name"]: one["value"] for one in container["env"]}}
    for source in container["envFrom"]:
        env |= secrets.get(source["secretRef"]["name"], {})
    # The image has `prefect` on its path, and tini hands on to it what process 1 gets.
    assert [*container["command"], *container["args"]] == ["tini", "--", "prefect", "flow-run", "execute"]
    command = [sys.executable, "-m", *container["args"]]
    with log.open("ab") as file:
        return subprocess.Popen(
            command, env={**env, "PREFECT_API_URL": url}, cwd=container["workingDir"], stdout=file, stderr=file
        )


def state(flow_run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(flow_run.id).state
    return found.name if found is not None and found.name else ""


def begun(folder: Path, process: "subprocess.Popen[bytes]", log: Path) -> int:
    wait_for(lambda: (folder / "pid").exists() or process.poll() is not None, "the stage")
    assert process.poll() is None, log.read_text()
    return int((folder / "pid").read_text())


def test_a_pod_s_stage_finishes(cluster, url, tmp_path):
    flow_run = ask_for("TRAINS", tmp_path)
    log = tmp_path / "log"
    assert pod(cluster, url, log).wait(PATIENCE) == 0, log.read_text()
    assert state(flow_run) == "Completed", log.read_text()
    assert (tmp_path / "run/pretrain/result.json").exists()


def test_an_evicted_pod_saves_and_the_stage_goes_on_in_another(cluster, url, tmp_path):
    flow_run = ask_for("SAVES_THEN_TRAINS", tmp_path)
    folder, log = tmp_path / "run/pretrain", tmp_path / "log"
    process = pod(cluster, url, log)
    rank = begun(folder, process, log)
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert (folder / "saved").exists(), log.read_text()
    assert not alive(rank)
    assert state(flow_run) == "AwaitingRetry", log.read_text()
    assert pod(cluster, url, log).wait(PATIENCE) == 0, log.read_text()
    assert state(flow_run) == "Completed", log.read_text()
    assert not (tmp_path / "run/superseded").exists()


def test_a_cancelled_pod_saves_and_stays_cancelled(cluster, url, tmp_path):
    flow_run = ask_for("WAITS", tmp_path)
    folder, log = tmp_path / "run/pretrain", tmp_path / "log"
    process = pod(cluster, url, log)
    rank = begun(folder, process, log)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Cancelling())
    # Prefect's process in the pod hears of it; its worker deletes only jobs that wait.
    process.wait(PATIENCE)
    assert (folder / "saved").exists(), log.read_text()
    assert not alive(rank)
    assert state(flow_run) == "Cancelled", log.read_text()
