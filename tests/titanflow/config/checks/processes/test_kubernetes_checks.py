from dataclasses import asdict
from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.checks.processes.kubernetes import kubernetes_problems
from titanflow.config.keys.launcher import Launcher

GOOD: dict[str, Any] = {"image": "registry.example.org:5000/lab/titanflow@sha256:1", "volumes": {"/shared": "data"}}


def found(**settings: Any) -> list[str]:
    launcher = asdict(Launcher()) | {"kind": "kubernetes"}
    launcher["kubernetes"] |= GOOD | settings
    return [f"{key.partition('.')[0]}: {message}" for key, message, *_ in kubernetes_problems(launcher)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"namespace": "a-1", "queue": "lab.queue", "priority_class": "system-node-critical", "service_account": "me"},
        {"secrets": ["hub", "wandb-key"], "image_pull_secrets": ["registry.example.org"]},
        {"volumes": {"/shared": "data", "/scratch/fast": "/mnt/nvme"}},
        {"capabilities": ["IPC_LOCK", "SYS_PTRACE"]},
        {"env": {"NCCL_SOCKET_IFNAME": "eth0", "_A1": "", "TOKENIZERS_PARALLELISM": "false"}},
        {"resources": {"cpu": "500m", "memory": "1.5Gi", "ephemeral-storage": "10G", "hugepages-2Mi": "1Gi"}},
        {"resources": {"rdma/hca": "1", "cpu": "16"}, "gpu_resource": "amd.com/gpu"},
        {"node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "pool": ""}},
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute"}]},
    ],
)
def test_what_kubernetes_takes_is_taken(settings: dict[str, Any]) -> None:
    assert found(**settings) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image": None}, "image: found None"),
        ({"image": "a b"}, "image: found 'a b'"),
        ({"namespace": "Lab"}, "namespace: found 'Lab'"),
        ({"namespace": "a.b"}, "namespace: found 'a.b'"),
        ({"namespace": "a" * 64}, "namespace: found"),
        ({"secrets": ["hub", "My_Secret"]}, "secrets: found 'My_Secret'"),
        ({"queue": "-q"}, "queue: found '-q'"),
        ({"volumes": {}}, "volumes: found none"),
        ({"volumes": {"shared": "data"}}, "volumes: found 'shared'"),
        ({"volumes": {"/": "data"}}, "volumes: found '/'"),
        ({"volumes": {"/a/../b": "data"}}, "volumes: found '/a/../b'"),
        ({"volumes": {"/shared": "My Data"}}, "volumes: found 'My Data' at /shared"),
        ({"volumes": {"/shared": "/mnt/../etc"}}, "volumes: found '/mnt/../etc' at /shared"),
        ({"capabilities": ["CAP_IPC_LOCK"]}, "capabilities: found 'CAP_IPC_LOCK'"),
        ({"env": {"A-B": "1"}}, "env: found 'A-B'"),
        ({"env": {"HF_TOKEN": "x"}}, "env: HF_TOKEN looks like a secret"),
        ({"env": {"HUB": "hf_abcdefghij"}}, "env: HUB looks like a secret"),
        ({"resources": {"mem": "1Gi"}}, "resources: found 'mem'"),
        ({"resources": {"memory": "64gb"}}, "resources: found memory: '64gb'"),
        # A thousandth of a byte, which is what 64m of memory would be.
        ({"resources": {"memory": "64m"}}, "resources: found memory: '64m'"),
        ({"resources": {"cpu": "four"}}, "resources: found cpu: 'four'"),
        ({"resources": {"nvidia.com/gpu": "8"}}, "resources: found nvidia.com/gpu: 8, and launcher.nproc_per_node"),
        ({"shared_memory": "all"}, "shared_memory: found 'all'"),
        ({"gpu_resource": "gpu"}, "gpu_resource: found 'gpu'"),
        ({"node_selector": {"a/b/c": "d"}}, "node_selector: found a/b/c: 'd'"),
        ({"node_selector": {"a": "H100 80GB"}}, "node_selector: found a: 'H100 80GB'"),
        ({"resources": {"cpu": "4Gi"}}, "resources: found cpu: '4Gi'"),
        ({"resources": {"cpu": "2k"}}, "resources: found cpu: '2k'"),
        ({"volumes": {"/shared": "a", "/shared/": "b"}}, "volumes: found '/shared', where something else"),
        ({"volumes": {"/shared": "a", "/dev/shm/": "b"}}, "volumes: found '/dev/shm/', where something else"),
        ({"queue": "q" * 64}, "queue: found"),
        ({"env": {"TITANFLOW_JOB": "x"}}, "env: found TITANFLOW_JOB"),
        ({"env": {"PET_RDZV_ENDPOINT": "x"}}, "env: found PET_RDZV_ENDPOINT"),
        ({"env": {"wandb_api_key": "x"}}, "env: wandb_api_key looks like a secret"),
        ({"tolerations": [{"key": "a", "value": True}]}, "tolerations: found value: True"),
        ({"tolerations": [{"key": "a", "operator": ["Exists"]}]}, "tolerations: found operator: ['Exists']"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations: found value 'b'"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 9}]}, "tolerations: found tolerationSeconds without"),
        ({"tolerations": [{"kye": "a"}]}, "tolerations: found 'kye'"),
        ({"tolerations": [{"value": "a"}]}, "tolerations: found no key"),
        ({"tolerations": [{"key": "a", "operator": "Is"}]}, "tolerations: found operator 'Is'"),
        ({"tolerations": [{"key": "a", "effect": "Never"}]}, "tolerations: found effect 'Never'"),
    ],
)
def test_what_kubernetes_would_not_take_is_refused(settings: dict[str, Any], expected: str) -> None:
    assert any(one.startswith(expected) for one in found(**settings)), found(**settings)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["kubernetes.image=x"], "kubernetes.image: found 'x', and launcher.kind is local: nothing reads it"),
        (["kind=kubernetes", "node_rank=1"], "node_rank: found 1, and launcher.kind is kubernetes"),
        (["kind=slurm", "share_device=true"], "share_device: found True, and launcher.kind is slurm"),
        # Without a space behind the colon this is one key.
        (["kubernetes.volumes={/shared: }"], "kubernetes.volumes: found {'/shared': None} (dict)"),
        (["kind=kubernetes", "kubernetes.imgae=x"], "kubernetes.imgae: unknown key"),
    ],
)
def test_keys_of_another_kind_are_refused(write, load, given: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(), *(f"pretrain.launcher.{one}" for one in given))
    assert f"pretrain.launcher.{expected}" in str(refused.value)
    if "(dict)" in expected:
        assert "expected: a mapping, each value text" in str(refused.value)
