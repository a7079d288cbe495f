"""Checks of ``launcher.kubernetes``: names, quantities and paths as Kubernetes takes them.

Facts: Kubernetes' pages "Object Names and IDs", "Labels and Selectors", "Quantity" and "Taints and Tolerations" (1.34).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from titanflow.common.credentials import is_secret, redact

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
QUANTITY = re.compile(r"\d+(\.\d+)?([mkMGTPE]|[KMGTPE]i)?")
CAPABILITY = re.compile(r"(?!CAP_)[A-Z][A-Z_]*")
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
NATIVE = ("cpu", "memory", "ephemeral-storage")
"""Resources whose names have no domain; one of a device has: ``nvidia.com/gpu``."""
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
NAME = "a name of small letters, digits, - and ."
NAMES = ("namespace", "priority_class", "queue", "service_account")


def kubernetes_problems(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What Kubernetes wouldn't take: each mistake's key, what was found, what is expected, and what to do."""
    asked = launcher["kubernetes"]
    if not asked["image"]:
        yield "image", f"found {asked['image']!r}", "the image that the stage runs in, with titanflow in it"
    elif re.search(r"\s", asked["image"]):
        yield "image", f"found {asked['image']!r}", "registry/repository:tag"
    yield from _names(asked)
    yield from _volumes(asked["volumes"])
    for name, value in asked["env"].items():
        if not VARIABLE.fullmatch(name):
            yield "env", f"found {name!r}", "names of environment variables"
        elif is_secret(name) or redact(value) != value:
            hint = "put it into a secret of the namespace (kubectl create secret), and name that one"
            yield (
                "env",
                f"{name} looks like a secret, and would stand in the manifest",
                "launcher.kubernetes.secrets",
                hint,
            )
    for name in asked["capabilities"]:
        if not CAPABILITY.fullmatch(name):
            yield "capabilities", f"found {name!r}", "a capability without CAP_: IPC_LOCK"
    yield from _resources(asked)
    for key, value in asked["node_selector"].items():
        if not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            yield "node_selector", f"found {key}: {value!r}", "a label of a node and its value"
    for toleration in asked["tolerations"]:
        yield from _toleration(toleration)


def _names(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    one = [(key, asked[key]) for key in NAMES if asked[key] is not None]
    many = [(key, name) for key in ("secrets", "image_pull_secrets") for name in asked[key]]
    for key, name in (*one, *many):
        # A namespace is part of a host's name, so it is a single label.
        if not (LABEL if key == "namespace" else SUBDOMAIN).fullmatch(name):
            yield key, f"found {name!r}", NAME if key != "namespace" else "small letters, digits and -, 63 at most"


def _volumes(volumes: dict[str, str]) -> Iterator[tuple[str, ...]]:
    hint = "the workspace has to outlive the pods, on storage that they all see"
    if not volumes:
        yield "volumes", "found none", "{/shared: the claim's name}", hint
    for path, source in volumes.items():
        if not path.startswith("/") or ":" in path or ".." in path.split("/") or path.rstrip("/") == "":
            yield "volumes", f"found {path!r}", "the path in the pod, which begins with /"
        is_folder = source.startswith("/") and ".." not in source.split("/")
        if not is_folder and not SUBDOMAIN.fullmatch(source):
            yield "volumes", f"found {source!r} at {path}", "the name of a claim, or a folder of the nodes, /…"


def _resources(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, quantity in asked["resources"].items():
        if not KEY.fullmatch(name) or ("/" not in name and name not in NATIVE and not name.startswith("hugepages-")):
            yield "resources", f"found {name!r}", f"{', '.join(NATIVE)}, or a device with its domain: rdma/hca"
        elif name == asked["gpu_resource"]:
            hint = "leave it out: launcher.device: cuda asks for one GPU a process"
            yield "resources", f"found {name}: {quantity}, and launcher.nproc_per_node says how many", "", hint
        elif not QUANTITY.fullmatch(quantity) or (quantity.endswith("m") and name != "cpu"):
            yield "resources", f"found {name}: {quantity!r}", "a quantity: 4, 500m (of cpu), 64Gi"
    if not QUANTITY.fullmatch(asked["shared_memory"]) or asked["shared_memory"].endswith("m"):
        yield "shared_memory", f"found {asked['shared_memory']!r}", "a quantity: 8Gi"
    if not KEY.fullmatch(asked["gpu_resource"]) or "/" not in asked["gpu_resource"]:
        yield "gpu_resource", f"found {asked['gpu_resource']!r}", "a device with its domain: nvidia.com/gpu"


def _toleration(toleration: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    unknown = [key for key in toleration if key not in TOLERATION]
    operator = toleration.get("operator", "Equal")
    if unknown:
        yield "tolerations", f"found {unknown[0]!r}", ", ".join(TOLERATION)
    if operator not in ("Equal", "Exists"):
        yield "tolerations", f"found operator {operator!r}", "Equal or Exists"
    elif operator == "Equal" and "key" not in toleration:
        yield "tolerations", "found no key", "the key of a taint; with operator: Exists, none means all taints"
    if toleration.get("effect") not in (None, *EFFECTS):
        yield "tolerations", f"found effect {toleration['effect']!r}", ", ".join(EFFECTS)
