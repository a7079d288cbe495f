"""Stages as pods of Prefect's own Kubernetes work pool: its worker, and a local API that keeps the requests."""

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from kubernetes_asyncio.config import kube_config
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_KEY, temporary_settings
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration
from published_schema import problems
from recorded_api import RecordedApi, recorded_api

from deployments.kubernetes_pool import (
    TEMPLATE,
    PodsPool,
    check_variables,
    ensure_pods_pool,
    read_variables,
)
from deployments.stage_pool import deploy_stages
from deployments.work_pool import ensure_pool
from flows.pods import pod_variables, why_no_pod
from titanflow.common.errors import ConfigError
from titanflow.runs.contract import KINDS

ELSEWHERE = "env.PREFECT_API_URL=http://prefect:4200/api"
TOKEN = "pnu_0123456789"


@pytest.fixture
def template() -> dict[str, Any]:
    return json.loads(TEMPLATE.read_text())


def rendered(template: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """The job that Prefect's worker makes of a flow run with these variables."""
    variables = {"image": "titanflow:cuda", **variables}
    check_variables(variables, template)
    no_client: Any = SimpleNamespace()
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(template, variables, client=no_client)
    )
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="stdlib/main pretrain"))
    return configuration.job_manifest


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(job)["containers"]
    return only


def refused(job: dict[str, Any]) -> list[str]:
    """What the published schema refuses, without the two fields of a job that Prefect wants to see in the pod.

    An API server drops them with a warning.
    """
    job = copy.deepcopy(job)
    assert [pod(job).pop(name) for name in ("parallelism", "completions")] == [1, 1]
    return problems(job)


def test_a_job_with_every_default(template: dict[str, Any]) -> None:
    job = rendered(template)
    assert refused(job) == []
    assert job["metadata"]["generateName"] == "stdlib-main-pretrain-"
    assert (job["spec"]["backoffLimit"], pod(job)["restartPolicy"]) == (0, "Never")
    assert "nodeSelector" not in pod(job) or pod(job)["nodeSelector"] == {}
    assert "serviceAccountName" not in pod(job)
    assert container(job)["command"] + container(job)["args"] == ["tini", "--", "prefect", "flow-run", "execute"]
    assert container(job)["resources"] == {"requests": {"nvidia.com/gpu": 0}, "limits": {"nvidia.com/gpu": 0}}
    assert container(job)["workingDir"] == "/workspace"
    assert {mount["mountPath"]: mount["name"] for mount in container(job)["volumeMounts"]} == {
        "/workspace": "workspace",
        "/dev/shm": "shared-memory",
    }
    assert pod(job)["securityContext"]["runAsNonRoot"] is True


def test_each_variable_lands_where_it_should(template: dict[str, Any]) -> None:
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    job = rendered(
        template,
        image="registry/titanflow:1",
        image_pull_policy="Always",
        image_pull_secrets=[{"name": "registry"}],
        namespace="training",
        service_account_name="trainer",
        priority_class_name="low",
        gpu=8,
        cpu_request=16,
        cpu_limit="32",
        memory_request="64Gi",
        memory_limit="128Gi",
        shared_memory="32Gi",
        claim="team",
        claim_path="/mnt/team",
        secret="tokens",
        fs_group=2000,
        node_selector={"gpu": "h100"},
        tolerations=tolerations,
        save_seconds=90,
        finished_job_ttl=60,
        labels={"kueue.x-k8s.io/queue-name": "gpus"},
        annotations={"team": "speech"},
        env={"NCCL_DEBUG": "INFO"},
        name="mine",
        command="prefect version",
    )
    assert refused(job) == []
    assert job["metadata"]["namespace"] == "training"
    assert job["metadata"]["generateName"] == "mine-"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["template"]["metadata"]["annotations"] == {"team": "speech"}
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
    expected = {
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "trainer",
        "priorityClassName": "low",
        "nodeSelector": {"gpu": "h100"},
        "tolerations": tolerations,
        "terminationGracePeriodSeconds": 90,
    }
    assert {name: pod(job)[name] for name in expected} == expected
    assert pod(job)["securityContext"]["fsGroup"] == 2000
    assert pod(job)["volumes"] == [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": "team"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}},
    ]
    stage = container(job)
    assert (stage["image"], stage["imagePullPolicy"]) == ("registry/titanflow:1", "Always")
    assert stage["args"] == ["prefect", "version"]
    assert stage["resources"] == {
        "requests": {"cpu": 16, "memory": "64Gi", "nvidia.com/gpu": 8},
        "limits": {"cpu": "32", "memory": "128Gi", "nvidia.com/gpu": 8},
    }
    assert stage["workingDir"] == stage["volumeMounts"][0]["mountPath"] == "/mnt/team"
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in stage["env"]
    assert {"name": "HF_HOME", "value": "/mnt/team/.cache/huggingface"} in stage["env"]
    assert stage["envFrom"] == [{"secretRef": {"name": "tokens", "optional": True}}]


def test_a_typo_at_any_level_of_the_template_is_refused(template: dict[str, Any]) -> None:
    places = ["metadata", "spec", "spec.template", "spec.template.spec", "spec.template.spec.securityContext"]
    for name in ("", ".resources", ".securityContext", ".volumeMounts.0", ".envFrom.0", ".env.0"):
        places.append(f"spec.template.spec.containers.0{name}")
    for name in ("0.persistentVolumeClaim", "1.emptyDir"):
        places.append(f"spec.template.spec.volumes.{name}")
    for dotted in places:
        spoilt = copy.deepcopy(template)
        place: Any = spoilt["job_configuration"]["job_manifest"]
        for key in dotted.split("."):
            place = place[int(key) if key.isdigit() else key]
        place["spce"] = {}
        assert any("spce" in problem for problem in refused(rendered(spoilt))), dotted


def test_every_variable_is_used_and_documented(template: dict[str, Any]) -> None:
    text = json.dumps(template["job_configuration"])
    for name, schema in template["variables"]["properties"].items():
        assert f'"{{{{ {name} }}}}' in text
        assert schema["title"]
        assert schema["description"].endswith(".")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["image=titanflow", "gpus=8"], "--job gpus: unknown variable"),
        (["image=titanflow", "gpus=8"], "did you mean gpu?"),
        (["gpu=8"], "'image' is a required property"),
        (["image=titanflow", "gpu=eight"], "--job gpu: 'eight' is not of type 'integer'"),
        (["image=titanflow", "gpu=-1"], "--job gpu: -1 is less than the minimum of 0"),
        (["image=titanflow", "claim_path=workspace"], "--job claim_path: 'workspace' does not match"),
        (["image=titanflow", "save_seconds=5"], "--job save_seconds: 5 is less than the minimum of 45"),
        (["image=titanflow", "image_pull_policy=always"], "--job image_pull_policy: 'always' is not one of"),
        (["image=titanflow", "node_selector={gpu: 1}"], "--job node_selector.gpu: 1 is not of type 'string'"),
        (["image=titanflow", "gpu=8", "gpu=4"], "--job gpu: set twice"),
        (["image=titanflow", "env.HF_TOKEN=hf_x"], "--job env.HF_TOKEN: a secret would be stored"),
        (["image=titanflow", "env={A: b}", "env.A=b"], "--job env.A: set twice"),
        (["image"], "--job: found 'image'"),
    ],
)
def test_a_wrong_variable_is_refused_before_there_is_a_pool(api: str, asked: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ensure_pods_pool(api, "wrong", [*asked, ELSEWHERE])
    assert said in str(error.value)
    with get_client(sync_client=True) as client:
        assert "wrong" not in {pool.name for pool in client.read_work_pools()}


def test_how_variables_are_read() -> None:
    asked = ["gpu=8", "claim=team", "env.OMP_NUM_THREADS=8", "env.EMPTY=", "labels.a.b/c=d", "tolerations=[{key: a}]"]
    assert read_variables(asked) == {
        "gpu": 8,
        "claim": "team",
        "env": {"OMP_NUM_THREADS": "8", "EMPTY": None},
        "labels": {"a.b/c": "d"},
        "tolerations": [{"key": "a"}],
    }


def test_what_follows_from_the_variables() -> None:
    pods = PodsPool({}, {"namespace": "training", "claim_path": "/mnt/team"})
    assert pods.folder == Path("/mnt/team")
    assert pods.worker_environment["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == "training"


def test_a_server_that_no_pod_reaches_is_refused(api: str) -> None:
    with pytest.raises(ConfigError, match="PREFECT_API_URL: a pod can't reach http://127"):
        ensure_pods_pool(api, "near", ["image=titanflow"])


def test_a_pool_of_the_other_type_is_refused(api: str) -> None:
    ensure_pool(api, "processes")
    with pytest.raises(ConfigError, match="'processes' is of type process"):
        ensure_pods_pool(api, "processes", ["image=titanflow", ELSEWHERE])
    ensure_pods_pool(api, "pods", ["image=titanflow", ELSEWHERE])
    with pytest.raises(ConfigError, match="'pods' is of type kubernetes") as error:
        ensure_pool(api, "pods")
    assert "--job image=IMAGE" in str(error.value)


def test_the_server_refuses_a_typo_too(api: str) -> None:
    pods = ensure_pods_pool(api, "typo", ["image=titanflow", ELSEWHERE])
    with pytest.raises(PrefectHTTPStatusError, match="gpus"):
        deploy_stages(api, "typo", Path("/workspace"), variables={**pods.asked, "gpus": 8})


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedApi]:
    """A local API that Prefect's worker takes for a cluster's."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED", "0")
    with recorded_api(tmp_path / "kubeconfig") as cluster:
        # Read from the environment when the client was imported.
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield cluster
        assert cluster.unknown == []


def served(api: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool with its deployment, and the settings of its worker."""
    asked = ["image=registry/titanflow:cuda", "claim=team", "claim_path=/mnt/team", ELSEWHERE]
    pods = ensure_pods_pool(api, pool, asked)
    deploy_stages(api, pool, pods.folder, variables=pods.asked)
    for name, value in pods.worker_environment.items():
        monkeypatch.setenv(name, value)


def test_the_jobs_of_all_stages_as_a_cluster_gets_them(
    api: str, cluster: RecordedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(api, "gpus", monkeypatch)
    runs = {stage: ask_for("gpus", stage, {"gpu": number}) for number, stage in enumerate(KINDS)}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with temporary_settings({PREFECT_API_KEY: TOKEN}):
        asyncio.run(submit("gpus"))
    jobs = {job["metadata"]["labels"]["prefect.io/flow-run-id"]: job for job in cluster.of("Job")}
    secrets = {secret["metadata"]["name"]: secret["stringData"] for secret in cluster.of("Secret")}
    assert jobs.keys() == set(runs.values())
    for number, stage in enumerate(KINDS):
        job = jobs[runs[stage]]
        assert refused(job) == []
        assert TOKEN not in json.dumps(job)
        assert job["metadata"]["generateName"] == f"stdlib-main-{stage}-"
        assert container(job)["image"] == "registry/titanflow:cuda"
        assert container(job)["resources"]["limits"] == {"nvidia.com/gpu": number}
        # The run's variables are in a secret of the job's own, the user's in the user's.
        users, own = (source["secretRef"]["name"] for source in container(job)["envFrom"])
        assert users == "titanflow"
        assert secrets[own]["PREFECT__FLOW_RUN_ID"] == runs[stage]
        assert secrets[own]["PREFECT_API_KEY"] == TOKEN
        assert secrets[own]["PREFECT_API_URL"] == "http://prefect:4200/api"
        assert "HF_TOKEN" not in secrets[own]


def ask_for(pool: str, stage: str, variables: dict[str, Any]) -> str:
    """Makes a flow run of a stage, as a run with ``launcher.pool`` does; returns its id."""
    parameters = {"experiment": "stdlib", "configs": None, "run": "main", "settings": {}}
    parameters |= {"stage": stage, "folder": f"/mnt/team/runs/{stage}", "fingerprint": "f"}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"run-stage/{pool}")
        steps = [{"prefect.deployments.steps.set_working_directory": {"directory": "/mnt/team"}}]
        assert deployment.pull_steps == steps
        name = f"stdlib/main {stage}"
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, name=name, job_variables=variables
        )
    return str(run.id)


async def submit(pool: str) -> None:
    """Lets Prefect's worker take the runs of a pool once."""
    async with KubernetesWorker(work_pool_name=pool) as worker:
        await worker.sync_with_backend()
        # Leaving the block waits for what was submitted.
        await worker.get_and_submit_flow_runs()


def plan_with(**launcher: Any) -> Any:
    return SimpleNamespace(run=SimpleNamespace(config={"launcher": {"device": "auto", "nnodes": 1, **launcher}}))


def pool_of(type: str, template: dict[str, Any]) -> WorkPool:
    return WorkPool(name="gpu", type=type, base_job_template=template, default_queue_id=uuid4())


def test_a_stage_asks_for_as_many_gpus_as_it_has_processes(template: dict[str, Any]) -> None:
    pods, processes, bare = pool_of("kubernetes", template), pool_of("process", {}), pool_of("kubernetes", {})
    assert pod_variables(plan_with(device="cuda", nproc_per_node=8), pods) == {"gpu": 8}
    assert pod_variables(plan_with(device="cpu", nproc_per_node=8), pods) == {"gpu": 0}
    assert pod_variables(plan_with(nproc_per_node=8), pods) == {}
    assert pod_variables(plan_with(device="cuda", nproc_per_node=8), processes) == {}
    assert pod_variables(plan_with(device="cpu", nproc_per_node=8), bare) == {}


def test_a_stage_that_one_pod_can_t_run_is_refused(template: dict[str, Any]) -> None:
    pods, processes, bare = pool_of("kubernetes", template), pool_of("process", {}), pool_of("kubernetes", {})
    assert why_no_pod(plan_with(device="cuda"), pods) == ""
    assert why_no_pod(plan_with(nnodes=2), processes) == ""
    assert why_no_pod(plan_with(nnodes=2), pods) == "its stages have one pod each, and launcher.nnodes is 2"
    assert why_no_pod(plan_with(device="cuda"), bare).startswith("its template has no variable 'gpu'")
