"""A cluster of each test's own, which the client finds by its kubeconfig, and a stage's folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_api import LocalKubernetes

from titanflow.planning.cluster import kubernetes_api


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalKubernetes]:
    with LocalKubernetes() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        kubernetes_api.client.cache_clear()
        cluster.claims.add("data")
        yield cluster
        kubernetes_api.client.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrain"
    folder.mkdir()
    (folder / "run.yaml").touch()
    return folder
