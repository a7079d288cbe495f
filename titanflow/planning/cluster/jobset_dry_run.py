"""What a Kubernetes cluster would refuse of a stage's job, asked without creating anything.

Facts: Kubernetes' page "API Concepts" (dry run: a request runs through all of admission and is not stored).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from titanflow.common.credentials import is_secret
from titanflow.planning.cluster.jobset import GROUP, as_yaml, manifest
from titanflow.planning.cluster.kubernetes_api import ApiError, can_ask, core, create_jobset
from titanflow.planning.cluster.resources import DryRun, Resources, pasted

UNASKED = "Kubernetes couldn't be asked"
CHANGES = "exceeded quota"
"""A refusal for what others use now; a job waits for it."""
MAY_NOT_ASK = ("cannot create resource", "cannot get resource")
"""Refusals of the question, not of the job."""


def dry_run(command: Sequence[str], resources: Resources) -> DryRun:
    """What the cluster would refuse of a stage's JobSet, its claims and its pods, and what it couldn't be asked."""
    if not can_ask():
        return DryRun(unasked="there is no kubeconfig on this machine, and it is no pod of a cluster")
    body = manifest(command, resources)
    try:
        create_jobset(body, dry_run="All")
    except ApiError as error:
        # A job of that name is there, so the cluster takes such jobs.
        if error.status != 409:
            return DryRun(refused=[_told(error)]) if error.status else DryRun(warnings=[f"{UNASKED}: {error}"])
    found = DryRun(warnings=_left_out(resources))
    for what, ask in _questions(body):
        try:
            ask()
        except ApiError as error:
            is_open = not error.status or any(words in str(error) for words in (CHANGES, *MAY_NOT_ASK))
            if is_open:
                found.warnings.append(f"{UNASKED} about {what}: {error}")
            else:
                found.refused.append(f"{what}: {error}")
    return found


def _left_out(resources: Resources) -> list[str]:
    secrets = sorted(name for name in resources.handed_on if is_secret(name))
    if not secrets or resources.settings["secrets"]:
        return []
    return [f"{', '.join(secrets)} of this environment won't be in the pods: launcher.kubernetes.secrets names none"]


def submitted(command: Sequence[str], resources: Resources) -> str:
    """The command that submits a job, with the job's manifest as its input."""
    return pasted("kubectl create -f -", as_yaml(manifest(command, resources)))


def _questions(body: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    namespace = body["metadata"]["namespace"]
    template = body["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    for volume in template["spec"]["volumes"]:
        if claim := volume.get("persistentVolumeClaim", {}).get("claimName"):
            yield f"its claim {claim}", partial(core, "read_namespaced_persistent_volume_claim", claim, namespace)
    # Nothing of a JobSet's pods is looked at before they are created: accounts, priorities, quotas, security standards.
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**pod["metadata"], "generateName": f"{body['metadata']['name']}-"}
    options = {"dry_run": "All", "field_validation": "Strict"}
    yield "its pods", partial(core, "create_namespaced_pod", namespace, pod, **options)


def _told(error: ApiError) -> str:
    # A namespace that isn't there is named in the answer; an unknown kind isn't.
    if error.status == 404 and "namespaces" not in str(error):
        return f"the cluster doesn't know {GROUP}: its administrator installs JobSet, https://jobset.sigs.k8s.io"
    return str(error)
