"""What a plan asks a cluster of a job, through the real client, and what it makes of the answers."""

from pathlib import Path
from typing import Any

import pytest
from asked_jobs import SAVES, asked
from local_api import LocalKubernetes

from tasks.jobs import kubernetes
from titanflow.planning.cluster import jobset_dry_run, kubernetes_api


def dry(folder: Path, **settings: Any) -> tuple[list[str], list[str]]:
    found = jobset_dry_run.dry_run(["true"], asked(folder, **settings))
    return found.refused, found.warnings


def test_a_dry_run_creates_nothing(cluster: LocalKubernetes, folder: Path) -> None:
    assert dry(folder) == ([], [])
    assert cluster.jobsets == {}
    # Nor does it stumble over the job that is there.
    kubernetes.submit(["sh", "-c", SAVES], asked(folder))
    assert dry(folder) == ([], [])


def test_what_a_dry_run_refuses(cluster: LocalKubernetes, folder: Path) -> None:
    assert dry(folder, volumes={"/": "nothing"})[0] == ['its claim nothing: persistentvolumeclaims "nothing" not found']
    assert dry(folder, namespace="nowhere")[0] == ['namespaces "nowhere" not found']
    cluster.pod_refusal = 'violates PodSecurity "restricted:latest"'
    assert dry(folder)[0] == ['its pods: violates PodSecurity "restricted:latest"']
    cluster.has_jobset = False
    assert "its administrator installs JobSet" in dry(folder)[0][0]
    cluster.token = "another"
    assert dry(folder)[0] == ["Unauthorized"]


def test_what_a_dry_run_may_not_ask_is_said(cluster: LocalKubernetes, folder: Path) -> None:
    cluster.forbidden |= {"create pods", "get persistentvolumeclaims"}
    refused, warnings = dry(folder)
    assert refused == []
    asked_about = [one.removeprefix("Kubernetes couldn't be asked about ").partition(":")[0] for one in warnings]
    assert asked_about == ["its claim data", "its pods"]
    cluster.forbidden.clear()
    cluster.pod_refusal = 'pods "x" is forbidden: exceeded quota: gpus'
    assert "its pods: " + cluster.pod_refusal in dry(folder)[1][0]
    cluster.fail("POST .*", 503)
    assert dry(folder) == ([], ["Kubernetes couldn't be asked: planted 503"])


def test_a_token_that_no_pod_will_have_is_told(
    cluster: LocalKubernetes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_machine")
    (told,) = dry(folder)[1]
    assert told.startswith("HF_TOKEN of this environment won't be in the pods")
    assert dry(folder, secrets=["hub"]) == ([], [])


@pytest.mark.parametrize("text", ["", "nonsense", "contexts: [", "apiVersion: v1\nkind: Config\n"])
def test_a_kubeconfig_that_cannot_be_used_is_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    kubernetes_api.client.cache_clear()
    assert dry(folder)[0][0].startswith("no credentials for Kubernetes:")


def test_a_machine_that_knows_no_cluster_cannot_ask(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "there is no kubeconfig" in jobset_dry_run.dry_run(["true"], asked(folder)).unasked
