"""The manifests of an experiment's stages, held against the published schemas."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from published_schema import problems
from tiny_experiment import write_tiny_experiment

from titanflow.planning.cluster.jobset import as_yaml, manifest
from titanflow.planning.cluster.resources import resources
from titanflow.planning.launch import command, environment
from titanflow.planning.plan import Plan, make_plan
from titanflow.planning.view import command_lines

FULL = """
namespace: lab
image: registry.example.org/lab/titanflow:1.0
python: /opt/venv/bin/python
volumes: {{{root}: training-data, /scratch: /mnt/nvme}}
secrets: [hub, wandb]
env: {{NCCL_SOCKET_IFNAME: eth0, PRICE: "$(HOME) and $$"}}
resources: {{cpu: "16", memory: 128Gi, rdma/hca: "1"}}
shared_memory: 32Gi
node_selector: {{nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}}
tolerations: [{{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}}]
priority_class: training
queue: lab-queue
service_account: trainer
image_pull_secrets: [registry]
run_as_user: 1000
fs_group: 1000
capabilities: [IPC_LOCK]
save_seconds: 300
active_deadline_seconds: 86400
"""
LEAST = "image: titanflow\nvolumes: {{{root}: training-data}}\n"


def planned(root: Path, section: str, *settings: str, **changes: Any) -> Plan:
    """A plan of the tiny experiment as jobs of Kubernetes."""
    configs = write_tiny_experiment(root)
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    experiment["launcher"] = {"kind": "kubernetes", "kubernetes": yaml.safe_load(section.format(root=root)), **changes}
    path.write_text(yaml.safe_dump(experiment))
    return make_plan("tiny", configs, overrides=settings, runs_here=False)


def manifests(plan: Plan) -> dict[str, dict[str, Any]]:
    return {
        stage.stage: manifest(command(stage.run), resources(stage.run, environment(stage.run, plan.config)))
        for stage in plan.stages
        if stage.is_job
    }


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each mapping of a manifest whose keys the schema names."""
    if isinstance(node, dict):
        # Names of these are the user's.
        if path[-1:] not in (("labels",), ("annotations",), ("nodeSelector",), ("requests",), ("limits",)):
            yield path
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, (*path, index))


@pytest.mark.parametrize("section", [LEAST, FULL], ids=["least", "full"])
@pytest.mark.parametrize("changes", [{}, {"nnodes": 16, "nproc_per_node": 8, "device": "cuda"}], ids=["cpu", "cuda"])
def test_the_manifests_of_all_stages_hold(tmp_path: Path, section: str, changes: dict[str, Any]) -> None:
    whole = ("pretrain.training.global_batch_size=128", "sft.training.global_batch_size=128")
    small = ("pretrain.training.local_batch_size=1", "sft.training.local_batch_size=1")
    found = manifests(planned(tmp_path, section, *(whole if changes else ()), *(small if changes else ()), **changes))
    assert set(found) == {"pretrain", "sft", "evaluate"}
    for body in found.values():
        assert problems(body) == []
        # What kubectl reads is what the API gets.
        assert yaml.safe_load(as_yaml(body)) == body
        # With what JobSet adds, within a DNS label.
        assert len(f"{body['metadata']['name']}-nodes-0-15-abcde") <= 63


def test_the_commands_of_a_plan_show_what_the_cluster_gets(tmp_path: Path) -> None:
    plan = planned(tmp_path, FULL)
    shown = {line.split()[0]: line.partition("\n")[2] for line in command_lines(plan)}
    for name, body in manifests(plan).items():
        command, *text, end = shown[name].splitlines()
        assert command == f"kubectl create -f - <<'{end}'"
        assert yaml.safe_load("\n".join(text)) == body
    assert shown["publish"].lstrip().startswith("cd ")


def test_a_typo_at_any_level_is_refused(tmp_path: Path) -> None:
    body = manifests(planned(tmp_path, FULL))["pretrain"]
    found = list(places(body))
    assert len(found) > 30
    for path in found:
        spoilt = copy.deepcopy(body)
        place: Any = spoilt
        for key in path:
            place = place[key]
        place["typo"] = "typo"
        assert any("typo" in problem for problem in problems(spoilt)), path


def test_a_stage_on_gpus_asks_for_one_a_process(tmp_path: Path) -> None:
    settings = ("pretrain.training.global_batch_size=4", "pretrain.launcher.nproc_per_node=4")
    plan = planned(tmp_path, FULL, *settings, "pretrain.launcher.device=cuda")
    found = {name: body["spec"]["replicatedJobs"][0]["template"]["spec"] for name, body in manifests(plan).items()}
    (container,) = found["pretrain"]["template"]["spec"]["containers"]
    wanted = {"cpu": "16", "memory": "128Gi", "rdma/hca": "1", "nvidia.com/gpu": "4"}
    assert container["resources"]["requests"] == wanted
    # No part of a second without a core.
    assert container["resources"]["limits"] == {key: value for key, value in wanted.items() if key != "cpu"}
    (other,) = found["sft"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in other["resources"]["requests"]


def test_no_secret_of_the_environment_stands_in_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "HF_TOKEN": "hf_abcdefghij",
        "WANDB_API_KEY": "key-of-mine",
        "HF_ENDPOINT": "https://me:pass-of-mine@hub",
        "https_proxy": "http://me:pass-of-mine@proxy",
    }
    for name, value in {**secrets, "NCCL_DEBUG": "INFO", "PATH": "/of/this/machine"}.items():
        monkeypatch.setenv(name, value)
    for body in manifests(planned(tmp_path, FULL)).values():
        text = as_yaml(body)
        assert not any(word in text for word in ("hf_abc", "key-of-mine", "pass-of-mine", "/of/this/machine"))
        (container,) = body["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "hub"}}, {"secretRef": {"name": "wandb"}}]
