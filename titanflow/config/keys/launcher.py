"""The keys of a stage's processes: who starts them, and how many; the string below a field is its documentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Slurm:
    """What Slurm is asked for: options of ``sbatch``."""

    partition: str | None = None
    """The partition; unset, the cluster's default."""
    account: str | None = None
    """The account that is charged."""
    qos: str | None = None
    """The quality of service."""
    time: str | None = None
    """The job's time limit, as Slurm writes it (`90`, `4:00:00`, `2-12`); unset, the partition's. A stage that reaches
    it saves, and goes on in a new job."""
    gres: str | None = None
    """Generic resources of each node, `gpu:h100:8`."""
    constraint: str | None = None
    """Features that the nodes must have."""
    mem: str | None = None
    """Memory of each node: `64G`; a number is MiB, 0 is all of a node's memory. The export after the last step may take
    more than the training."""
    container: str | None = None
    """An image for `srun --container-image` (the plugin pyxis)."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash before the stage: `module load cuda`, `source /shared/venv/bin/activate`. One that fails ends the
    job, unless `|| true` follows. The shell is no login shell: where those define `module`, source its file first."""
    export: list[str] = field(default_factory=list)
    """Names of further environment variables to hand on. Those of Hugging Face, W&B, NCCL and torch always are."""
    save_seconds: int = 120
    """How long before its time limit a job is told to save. Slurm may be 60 s early."""
    extra: list[str] = field(default_factory=list)
    """Further options of `sbatch`: `--exclusive`, `--cpus-per-task=8`."""


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


@dataclass
class Launcher:
    """How torchrun starts a stage's processes."""

    kind: Literal["local", "slurm", "kubernetes"] = "local"
    """Who places the processes: this machine (`local`), or a cluster, which gets one job for the stage."""
    nproc_per_node: int = 1
    """Processes on each machine: one a GPU."""
    nnodes: int = 1
    """Machines."""
    node_rank: int = 0
    """This machine's number, from 0, where each machine is started by hand (`kind: local`)."""
    rdzv_endpoint: str | None = None
    """Where machines that are started by hand meet, host:port."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What the stage runs on: cpu hides the GPUs, cuda fails without one; auto takes what is there."""
    omp_num_threads: int | None = None
    """CPU threads a process; unset, the cores that binding and a container's limit leave, divided by the stage's
    processes."""
    pool: str | None = None
    """Prefect work pool whose machine runs the stage, on the same shared storage; unset, that of the run."""
    local_data: str | None = None
    """A folder of each machine's own disk, such as `$SLURM_TMPDIR`: a training copies its prepared rows there, once a
    machine, and reads them from there. `$NAME` is a variable of the machine that trains. Where there is no room, the
    rows are read from the workspace, with a warning. What old runs left there is yours to delete."""
    share_device: bool = False
    """Start even while another stage runs on the same GPU; otherwise wait for it."""
    slurm: Slurm = field(default_factory=Slurm)
    """What Slurm is asked for, with `kind: slurm`."""
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    """What Kubernetes is asked for, with `kind: kubernetes`."""


@dataclass
class PrepareLauncher:
    """Who prepares the data, and with how many processes."""

    kind: Literal["local", "slurm"] = "local"
    """Where: beside the flow (`local`), or as one job of Slurm, whose nodes divide the work."""
    nnodes: int = 1
    """Machines (`kind: slurm`)."""
    nproc_per_node: int | None = None
    """Processes on each machine; unset, as many as the data's size is worth, at most one a core. Slurm is asked for as
    many cores."""
    slurm: Slurm = field(default_factory=Slurm)
    """What Slurm is asked for, with `kind: slurm`."""
