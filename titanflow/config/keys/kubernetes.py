"""The keys of a stage's job in Kubernetes; the string below a field is its documentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Kubernetes:
    """What Kubernetes is asked for: a JobSet of one pod a node."""

    namespace: str = "default"
    """The namespace of the job, its secrets and its claims."""
    image: str | None = None
    """The image that holds titanflow and what it needs: `registry.example.org/lab/titanflow:1.0`."""
    python: str | None = None
    """The interpreter in the image; unset, the path of the one that plans the run."""
    volumes: dict[str, str] = field(default_factory=dict)
    """What is mounted where, by the path in the pod: a claim's name (`/shared: training-data`), or a folder that each
    node has (`/shared: /mnt/nfs`). The workspace, configs and data lie at the same path as where the run is planned."""
    secrets: list[str] = field(default_factory=list)
    """Names of Kubernetes secrets whose keys become environment variables: `HF_TOKEN`, `WANDB_API_KEY`."""
    env: dict[str, str] = field(default_factory=dict)
    """Further environment variables; they stand in the manifest for all to read, so a secret is refused."""
    resources: dict[str, str] = field(default_factory=dict)
    """What each pod asks for, in Kubernetes' own words: `{cpu: 16, memory: 128Gi, rdma/hca: 1}`. GPUs are asked for by
    themselves, one a process, with `device: cuda`."""
    gpu_resource: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    shared_memory: str = "8Gi"
    """The most that `/dev/shm` may hold, out of the pod's memory: NCCL and data loaders exchange data there."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that the nodes must have: `{nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}`."""
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    """Taints that the pods bear: `[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]`."""
    priority_class: str | None = None
    """The name of the pods' priority class."""
    queue: str | None = None
    """Kueue's local queue, which lets the job start when all of its pods have a place."""
    service_account: str | None = None
    """The account that the pods run as, where the cloud's storage asks for one; they get no token of the API."""
    image_pull_secrets: list[str] = field(default_factory=list)
    """Names of secrets by which the image is pulled."""
    run_as_user: int | None = None
    """The user id that owns the files that are written; unset, the image's."""
    capabilities: list[str] = field(default_factory=list)
    """Linux capabilities that the stage keeps, which otherwise has none: `[IPC_LOCK]` for RDMA."""
    fs_group: int | None = None
    """The group id that the volumes belong to."""
    save_seconds: int = 120
    """How long a pod may save after it is told to end, before it is killed."""
    active_deadline_seconds: int | None = None
    """How long a job may take, its wait included. A stage that reaches it saves, and goes on in a new job."""
