"""Which keys a cluster's refusal of a job is about, by its own words.

Facts: ``slurm_errno.c`` and ``sbatch`` (22.05); the answers of Kubernetes' API, which name a kind or a field's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from titanflow.common.errors import Problem
from titanflow.files.origins import is_written, origin_of
from titanflow.runs.contract import StageRun

ABOUT: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "slurm": (
        ("account", ("slurm.account", "slurm.partition", "slurm.qos")),
        ("permitted to use this partition", ("slurm.partition", "slurm.account")),
        ("nodes not in this partition|partition configuration", ("nnodes", "slurm.partition")),
        ("partition", ("slurm.partition",)),
        ("qos", ("slurm.qos", "slurm.time", "nnodes")),
        ("time limit|invalid time", ("slurm.time",)),
        ("memory", ("slurm.mem",)),
        ("generic resource|gres", ("slurm.gres", "device", "nproc_per_node")),
        ("feature|constraint", ("slurm.constraint",)),
        ("node count|job size", ("nnodes",)),
        ("reservation|licen[cs]e|wckey|burst buffer|mcs_label|cpu count|unrecognized option", ("slurm.extra",)),
        # Whatever the job asks of its nodes may be more than they have.
        ("node configuration|processors", ("slurm.mem", "slurm.gres", "slurm.constraint", "slurm.extra", "nnodes")),
    ),
    "kubernetes": (
        ("namespace", ("kubernetes.namespace",)),
        ("persistentvolumeclaim|claim", ("kubernetes.volumes",)),
        ("priorityclass", ("kubernetes.priority_class",)),
        ("serviceaccount|service account", ("kubernetes.service_account",)),
        ("toleration", ("kubernetes.tolerations",)),
        ("nodeselector", ("kubernetes.node_selector",)),
        ("queue", ("kubernetes.queue",)),
        ("secret", ("kubernetes.secrets", "kubernetes.image_pull_secrets")),
        ("capabilit", ("kubernetes.capabilities",)),
        ("runasuser|runasnonroot", ("kubernetes.run_as_user",)),
        ("hostpath", ("kubernetes.volumes",)),
        ("cpu|memory|resources", ("kubernetes.resources", "device", "nproc_per_node")),
        ("image", ("kubernetes.image",)),
    ),
}
"""Words of a cluster's refusal, and the keys below ``launcher`` that it may be about, the likeliest first."""


def refusal(run: StageRun, told: str, message: str, hint: str) -> Problem:
    """A cluster's refusal of a stage's job, with the first key that someone wrote and that it may be about; the hint
    names the others."""
    kind = str(run.config["launcher"]["kind"])
    about = next((keys for words, keys in ABOUT[kind] if re.search(words, told, re.IGNORECASE)), ())
    written = [key for key in about if _is_written(run, f"launcher.{key}")]
    below = f"launcher.{written[0]}" if written else "launcher"
    origin = origin_of(run.origins, below if written else "launcher.kind")
    others = [f"launcher.{key} ({origin_of(run.origins, f'launcher.{key}')})" for key in written[1:]]
    return Problem(message, f"{run.stage}.{below}", origin, hint="; ".join([hint, *_or_about(others)]))


def _or_about(others: list[str]) -> list[str]:
    return [f"it may be about {' or '.join(others)} instead"] if others else []


def _is_written(run: StageRun, key: str) -> bool:
    return any(is_written(run.origins, name) for name in run.origins if name == key or name.startswith(f"{key}."))
