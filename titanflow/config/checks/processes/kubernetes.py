"""Checks of ``launcher.kubernetes``: names, quantities and paths as Kubernetes takes them.

Facts: Kubernetes' pages "Object Names and IDs", "Labels and Selectors", "Quantity" and "Taints and Tolerations" (1.34).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from titanflow.common.credentials import is_secret, redact
from titanflow.runs.torchrun import DEFAULTS, JOB

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
QUANTITY = re.compile(r"\d+(\.\d+)?([mkMGTPE]|[KMGTPE]i)?", re.ASCII)
CORES = re.compile(r"\d+(\.\d+)?m?", re.ASCII)
CAPABILITY = re.compile(r"(?!CAP_)[A-Z][A-Z_]*")
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
SHARED_MEMORY = "/dev/shm"
NATIVE = ("cpu", "memory", "ephemeral-storage")
"""Resources whose names have no domain; one of a device has: ``nvidia.com/gpu``."""
TOLERATION = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
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
            yield f"env.{name}", f"found {name!r}", "names of environment variables"
        elif name == JOB or name.startswith(DEFAULTS):
            yield f"env.{name}", f"found {name}", "variables that the stage's job doesn't set itself"
        elif is_secret(name) or redact(value) != value:
            hint = "put it into a secret of the namespace (kubectl create secret), and name that one"
            yield (
                f"env.{name}",
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
            yield f"node_selector.{key}", f"found {key}: {value!r}", "a label of a node and its value"
    for toleration in asked["tolerations"]:
        yield from _toleration(toleration)


def _names(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    one = [(key, asked[key]) for key in NAMES if asked[key] is not None]
    many = [(key, name) for key in ("secrets", "image_pull_secrets") for name in asked[key]]
    for key, name in (*one, *many):
        # A namespace is part of a host's name, so it is a single label.
        if not (LABEL if key == "namespace" else SUBDOMAIN).fullmatch(name):
            yield key, f"found {name!r}", NAME if key != "namespace" else "small letters, digits and -, 63 at most"
        elif key == "queue" and not VALUE.fullmatch(name):
            yield key, f"found {name!r}", "63 letters at most: it is the value of a label"


def _volumes(volumes: dict[str, str]) -> Iterator[tuple[str, ...]]:
    hint = "the workspace has to outlive the pods, on storage that they all see"
    if not volumes:
        yield "volumes", "found none", "{/shared: the claim's name}", hint
    places = [posixpath.normpath(path) for path in volumes]
    for path, source in volumes.items():
        if places.count(place := posixpath.normpath(path)) > 1 or place == SHARED_MEMORY:
            yield f"volumes.{path}", f"found {path!r}, where something else is mounted, too", "one volume at each path"
        if not path.startswith("/") or ":" in path or ".." in path.split("/") or path.rstrip("/") == "":
            yield f"volumes.{path}", f"found {path!r}", "the path in the pod, which begins with /"
        is_folder = source.startswith("/") and ".." not in source.split("/")
        if not is_folder and not SUBDOMAIN.fullmatch(source):
            yield f"volumes.{path}", f"found {source!r} at {path}", "the name of a claim, or a folder of the nodes, /…"


def _resources(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, quantity in asked["resources"].items():
        if not KEY.fullmatch(name) or ("/" not in name and name not in NATIVE and not name.startswith("hugepages-")):
            yield f"resources.{name}", f"found {name!r}", f"{', '.join(NATIVE)}, or a device with its domain: rdma/hca"
        elif name == asked["gpu_resource"]:
            hint = "leave it out: launcher.device: cuda asks for one GPU a process"
            yield f"resources.{name}", f"found {name}: {quantity}, and launcher.nproc_per_node says how many", "", hint
        elif not (CORES if name == "cpu" else QUANTITY).fullmatch(quantity) or (
            name != "cpu" and quantity.endswith("m")
        ):
            yield f"resources.{name}", f"found {name}: {quantity!r}", "a quantity: 4, 500m (of cpu), 64Gi"
    if not QUANTITY.fullmatch(asked["shared_memory"]) or asked["shared_memory"].endswith("m"):
        yield "shared_memory", f"found {asked['shared_memory']!r}", "a quantity: 8Gi"
    if not KEY.fullmatch(asked["gpu_resource"]) or "/" not in asked["gpu_resource"]:
        yield "gpu_resource", f"found {asked['gpu_resource']!r}", "a device with its domain: nvidia.com/gpu"


def _toleration(toleration: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    unknown = [key for key in toleration if key not in TOLERATION]
    wrong = [key for key, kind in TOLERATION.items() if type(toleration.get(key, kind())) is not kind]
    operator = toleration.get("operator", "Equal")
    if unknown:
        yield "tolerations", f"found {unknown[0]!r}", ", ".join(TOLERATION)
    for key in wrong:
        expected = "a whole number" if TOLERATION[key] is int else "a text, in quotes"
        yield "tolerations", f"found {key}: {toleration[key]!r}", expected
    if operator == "Exists" and toleration.get("value"):
        yield "tolerations", f"found value {toleration['value']!r}, and operator Exists", "", "leave out one of both"
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield "tolerations", "found tolerationSeconds without effect: NoExecute", "", "leave it out, or set the effect"
    if operator not in ("Equal", "Exists") and "operator" not in wrong:
        yield "tolerations", f"found operator {operator!r}", "Equal or Exists"
    elif operator == "Equal" and "key" not in toleration:
        yield "tolerations", "found no key", "the key of a taint; with operator: Exists, none means all taints"
    if toleration.get("effect") not in (None, *EFFECTS):
        yield "tolerations", f"found effect {toleration['effect']!r}", ", ".join(EFFECTS)
