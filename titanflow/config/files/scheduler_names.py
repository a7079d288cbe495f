"""Schedulers' own names of what a job asks for, and the keys here that mean the same: hints below ``launcher``.

Facts: the options of ``sbatch`` (22.05), and the fields of Kubernetes' jobs and pods.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from titanflow.config.checks.processes.slurm import OWN_OPTIONS

_NODES, _PROCESSES = "nnodes", "nproc_per_node"
NAMES: Mapping[str, Mapping[str, str]] = {
    "slurm": {
        _NODES: "nodes n nnodes num_nodes node_count",
        _PROCESSES: "ntasks ntasks_per_node tasks_per_node gpu gpus gpus_per_node gpus_per_task nproc_per_node",
        "omp_num_threads": "threads omp_num_threads",
        "slurm.partition": "p queue partitions",
        "slurm.account": "project charge accounts",
        "slurm.time": "t time_limit timelimit walltime time_min",
        "slurm.mem": "memory mem_per_node mem_gb",
        "slurm.constraint": "feature features constraints",
        "slurm.container": "image container_image",
        "slurm.setup": "module modules module_load prolog init",
        "slurm.export": "env environment envs",
        "slurm.save_seconds": "signal signal_delay_s",
        "slurm.extra": "args options additional_parameters sbatch_args extra_args",
    },
    "kubernetes": {
        _NODES: "nodes parallelism completions replicas pods num_nodes nnodes",
        _PROCESSES: "gpu gpus num_gpus gpus_per_node nproc_per_node",
        "kubernetes.resources": "cpu cpus memory mem requests limits",
        "kubernetes.volumes": "claim claims pvc mounts volume_mounts persistent_volume_claim host_path",
        "kubernetes.secrets": "env_from secret",
        "kubernetes.service_account": "service_account_name",
        "kubernetes.priority_class": "priority_class_name priority",
        "kubernetes.active_deadline_seconds": "time time_limit deadline active_deadline",
        "kubernetes.save_seconds": "termination_grace_period_seconds grace_period_seconds grace_period",
        "kubernetes.run_as_user": "user uid security_context",
        "kubernetes.queue": "queue_name local_queue kueue",
        "kubernetes.shared_memory": "shm shm_size dev_shm",
        "kubernetes.node_selector": "labels node_labels node_affinity affinity",
        "kubernetes.python": "command interpreter",
    },
}
"""By kind, the names in their schedulers of each key below ``launcher``."""
OPTIONS = (
    "acctg_freq bb bbf begin cluster_constraint comment contiguous core_spec cores_per_socket cpu_freq "
    "cpus_per_gpu cpus_per_task deadline delay_boot distribution exclude exclusive export_file get_user_env gid "
    "gpu_bind gpu_freq gpus_per_socket gres_flags hint hold ignore_pbs input kill_on_invalid_dep licenses "
    "mail_type mail_user mcs_label mem_bind mem_per_cpu mem_per_gpu mincpus network nice no_kill nodefile "
    "nodelist overcommit oversubscribe power prefer priority profile propagate quiet reboot reservation "
    "sockets_per_node spread_job switches thread_spec threads_per_core tmp uid use_min_nodes verbose "
    "wait_all_nodes wckey"
)
"""Options of sbatch that have no key here, and that a stage's job leaves alone."""


def scheduler_hint(key: str, value: Any, known: Collection[str], prefix: str) -> str:
    """A hint with the key to write for a scheduler's own name at the end of a dotted ``key``; empty if it is none.

    ``value`` is what was written, None for a section; ``known`` are the dotted keys of the key's place, and ``prefix``
    is that place's name, as ``sft.``.
    """
    above, _, written = key.rpartition(".")
    kind = above.rpartition(".")[2]
    launcher = above.removesuffix(f".{kind}") if kind in NAMES else above
    if kind not in NAMES and kind != "launcher":
        return ""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", written).replace("-", "_").lower()
    for own, names in NAMES[kind].items() if kind in NAMES else ():
        if name in names.split() and f"{launcher}.{own}" in known:
            gpus = f", one a GPU, with `{prefix}{launcher}.device: cuda`" if own == _PROCESSES else ""
            return f"`{written}` is `{prefix}{launcher}.{own}` here{gpus}"
    if kind == "kubernetes":
        return ""
    option = name.replace("_", "-")
    if name in OPTIONS.split():
        word = f"--{option}" if value is True else f"--{option}={'…' if value is None else value}"
        return f"write `{prefix}{launcher}.slurm.extra: [{word}]`: an option of sbatch without a key of its own"
    return f"a stage's job sets `--{option}` itself: leave it out" if option in OWN_OPTIONS else ""
