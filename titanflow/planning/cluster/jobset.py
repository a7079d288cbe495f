"""A stage's job as Kubernetes gets it: the manifest of a JobSet, one pod a node.

Facts: the JobSet API v1alpha2 (kubernetes-sigs/jobset), Kubernetes' pages on Jobs, pod failure policies, the lifecycle
of pods and the Restricted pod security standard, and Kueue's "Run A JobSet".
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from titanflow.common.credentials import is_secret, redact
from titanflow.planning.cluster.resources import NO_FOLDER, Resources
from titanflow.runs.contract import RUN_FILE
from titanflow.runs.torchrun import JOB, MEETING_ID, MEETING_POINT, MEETING_SETTINGS

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
MANIFEST_FILE = "job.yaml"
JOB_LABEL, STAGE_LABEL = "titanflow/job", "titanflow/stage"
"""Labels of a job and of its pods: what finds a stage's jobs, and what a person looks for."""
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""The label that JobSet gives to a job's pods."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
FINGERPRINT, FOLDER = "titanflow/fingerprint", "titanflow/folder"
"""Annotations of a job: what it makes, and where."""
REPLICATED_JOB = "nodes"
CONTAINER = "stage"
MEETING_PORT = 29400
MEETING_SECONDS = 3600
"""How long the pods wait for each other: an image of some GB may be pulled for minutes, on one node before another."""
KEPT_SECONDS = 86400
"""How long a finished job stays in the cluster, for its events and ``kubectl logs``."""
SHOWN_PREFIXES = ("HF_", "WANDB_", "TRACKIO_", "MLFLOW_", "NCCL_", "TORCH_", "GLOO_")
"""Variables of the flow's environment that stand in the manifest. Others are the image's or a secret's: a path or a
proxy of the machine that submits means nothing in a pod."""


class _Readable(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and equal values again and again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def identity(resources: Resources) -> str:
    """The job's id: ``<name>.<namespace>``, known before the job is there, so that it can't be submitted twice."""
    return f"{_name(resources)}.{resources.settings['namespace']}"


def manifest(command: Sequence[str], resources: Resources) -> dict[str, Any]:
    """The JobSet of a stage."""
    asked = resources.settings
    labels = {
        "app.kubernetes.io/name": "titanflow",
        STAGE_LABEL: resources.stage,
        JOB_LABEL: resources.name,
    }
    queue = {QUEUE_LABEL: asked["queue"]} if asked["queue"] else {}
    annotations = {FINGERPRINT: resources.fingerprint, FOLDER: str(resources.folder)}
    job = {
        "parallelism": resources.nodes,
        "completions": resources.nodes,
        "completionMode": "Indexed",
        # Resuming is the flow's, in a job with a name of its own.
        "backoffLimit": 0,
        # Without it a job doesn't say that its pods were preempted, evicted, or lost their node.
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        **_given(activeDeadlineSeconds=asked["active_deadline_seconds"]),
        "template": {"metadata": {"labels": labels}, "spec": pod(command, resources)},
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "JobSet",
        "metadata": {
            "name": _name(resources),
            "namespace": asked["namespace"],
            "labels": labels | queue,
            "annotations": annotations,
        },
        "spec": {
            # The pods find the first one by its name, before it is ready.
            "network": {
                "enableDNSHostnames": True,
                "publishNotReadyAddresses": True,
                "subdomain": _name(resources),
            },
            "successPolicy": {"operator": "All"},
            "failurePolicy": {"maxRestarts": 0},
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def pod(command: Sequence[str], resources: Resources) -> dict[str, Any]:
    """What runs on each node."""
    asked = resources.settings
    mounts, volumes = _volumes(asked)
    container = {
        "name": CONTAINER,
        "image": asked["image"],
        "command": ["/bin/sh", "-c", _unexpanded(script(command, resources))],
        "workingDir": str(Path.cwd()),
        "env": [{"name": name, "value": _unexpanded(value)} for name, value in sorted(_variables(resources).items())],
        "envFrom": [{"secretRef": {"name": name}} for name in asked["secrets"]],
        "resources": _amounts(resources),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], **_given(add=asked["capabilities"] or None)},
        },
    }
    user = asked["run_as_user"]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": asked["save_seconds"],
        # A stage asks nothing of the API, and variables of the namespace's services may look like its own.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            **_given(runAsUser=user, fsGroup=asked["fs_group"], runAsNonRoot=True if user else None),
        },
        **_given(
            serviceAccountName=asked["service_account"],
            priorityClassName=asked["priority_class"],
            nodeSelector=asked["node_selector"] or None,
            tolerations=asked["tolerations"] or None,
            imagePullSecrets=[{"name": name} for name in asked["image_pull_secrets"]] or None,
        ),
        "volumes": volumes,
        "containers": [container],
    }


def as_yaml(manifest: dict[str, Any]) -> str:
    """A manifest as ``kubectl create -f`` reads it."""
    return yaml.dump(manifest, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=10**6)


def script(command: Sequence[str], resources: Resources) -> str:
    """The first process of each pod: it hands SIGTERM on to torchrun, and notes how the stage ended.

    What the stage says goes into the log in its folder and to ``kubectl logs``. Each node but the first has a log of
    its own, since a line that two machines append to one file of NFS may be lost.
    """
    folder, job = shlex.quote(str(resources.folder)), identity(resources)
    threads = _threads(resources)
    lines = [
        f'[ -e {folder}/{RUN_FILE} ] || {{ echo "$(hostname) has no" {folder} >&2; exit {NO_FOLDER}; }}',
        'node="${JOB_COMPLETION_INDEX:-0}" log=' + shlex.quote(str(resources.log)),
        f'[ "$node" = 0 ] || log={folder}/job-{job}.node-"$node".log',
        # A queue may have taken the job's place away, and given it back.
        f'[ "$node" != 0 ] || rm -f {folder}/job-{job}.status',
        *_meeting(resources),
        f': "${{OMP_NUM_THREADS:={threads}}}"; export OMP_NUM_THREADS',
        '[ "$OMP_NUM_THREADS" -gt 0 ] || OMP_NUM_THREADS=1',
        'said="$(mktemp -u)"; mkfifo -m 600 "$said" || exit 73',
        "# Until the stage's process has begun, a signal would meet a copy of this shell, and be lost.",
        "stage= told= begun=$said.begun",
        'tell() { [ -z "$stage" ] || [ ! -e "$begun" ] || { kill -TERM "$stage" 2>/dev/null; trap woken=1 TERM; }; }',
        "trap 'told=1 woken=1; tell' TERM",
        "# A signal ends a wait, not the process; a status that an earlier wait took is not told twice (127).",
        'await() { while woken=; wait "$1"; now=$?; [ "$now" = 127 ] || ended=$now; [ -n "$woken" ]; do :; done; }',
        'tee -a "$log" < "$said" & tee=$!',
        f'{{ trap - TERM; : > "$begun"; exec {shlex.join(command)}; }} > "$said" 2>&1 & stage=$!',
        'until [ -e "$begun" ] || ! kill -0 "$stage" 2>/dev/null; do sleep 0.1; done; [ -z "$told" ] || tell',
        'ended=127; await "$stage"; status=$ended',
        f'[ "$node" != 0 ] || echo "$status" > {folder}/job-{job}.status',
        'await "$tee"; rm -f "$said" "$begun"',
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _name(resources: Resources) -> str:
    # Of two users' folders with one path, each on a claim of its own, each has its own jobs. With what JobSet, Job and
    # Kubernetes add (-nodes-0-<pod>-abcde) within the 63 letters of a DNS label.
    mounted = resources.settings["volumes"].items()
    holds = sorted(f"{path}={source}" for path, source in mounted if resources.folder.is_relative_to(path))
    return f"{resources.name}-{hashlib.sha256(' '.join(holds).encode()).hexdigest()[:6]}-{resources.attempt}"


def _meeting(resources: Resources) -> list[str]:
    if resources.nodes == 1:
        return []
    # torchrun looks its own name up to find out whether it is the first, and the name may not be known yet.
    waits = f"join_timeout={MEETING_SECONDS},read_timeout={MEETING_SECONDS}"
    return [
        'if [ "$node" = 0 ]; then first=1; else first=0; fi',
        f'export {MEETING_SETTINGS}="is_host=$first,{waits}"',
    ]


def _variables(resources: Resources) -> dict[str, str]:
    shown = {
        name: value
        for name, value in resources.handed_on.items()
        if name.startswith(SHOWN_PREFIXES) and not is_secret(name) and redact(value) == value
    }
    own = {JOB: identity(resources)}
    if resources.nodes > 1:
        first = f"{_name(resources)}-{REPLICATED_JOB}-0-0.{_name(resources)}"
        own |= {MEETING_POINT: f"{first}:{MEETING_PORT}", MEETING_ID: _name(resources)}
    return {**shown, **resources.variables, **own, **resources.settings["env"]}


def _threads(resources: Resources) -> str:
    # A pod sees all cores of its node, whatever it asked for.
    if cpu := resources.settings["resources"].get("cpu"):
        cores = float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1)
        return str(max(1, int(cores / resources.processes)))
    return f"$(($(nproc) / {resources.processes}))"


def _amounts(resources: Resources) -> dict[str, dict[str, str]]:
    asked = dict(resources.settings["resources"])
    if resources.gpus:
        asked[resources.settings["gpu_resource"]] = str(resources.gpus)
    # A limit of cpu would stop the stage for parts of each second while other cores idle.
    return {"requests": asked, "limits": {name: amount for name, amount in asked.items() if name != "cpu"}}


def _volumes(asked: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts: list[dict[str, Any]] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    memory = {"medium": "Memory", "sizeLimit": asked["shared_memory"]}
    volumes: list[dict[str, Any]] = [{"name": "shared-memory", "emptyDir": memory}]
    for number, (path, source) in enumerate(sorted(asked["volumes"].items())):
        name = f"volume-{number}"
        mounts.append({"name": name, "mountPath": path})
        is_folder = source.startswith("/")
        where = {"hostPath": {"path": source}} if is_folder else {"persistentVolumeClaim": {"claimName": source}}
        volumes.append({"name": name, **where})
    return mounts, volumes


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _unexpanded(text: str) -> str:
    # Kubernetes puts variables in place of $(NAME), and a dollar in place of two.
    return re.sub(r"\$(?=[$(])", "$$", text)
