"""Kubernetes manifests held against the schemas that JobSet publishes, with unknown fields refused.

``schemas/jobset-v1alpha2.json`` is the schema in ``config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml`` of
https://github.com/kubernetes-sigs/jobset at commit 08dfbdfd (Apache 2.0, ``schemas/LICENSE``), without its
descriptions. It holds the whole of a ``batch/v1`` Job and of a pod, too. An API server drops fields that it doesn't
know without a word, so they are refused here. What only a server checks (CEL rules, webhooks, names in use) isn't.
"""

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FILE = Path(__file__).parent / "schemas" / "jobset-v1alpha2.json"


def problems(manifest: dict[str, Any]) -> list[str]:
    """What the published schema of a manifest's kind refuses, each with its place; empty if nothing."""
    found = Draft202012Validator(_schema(manifest["kind"])).iter_errors(manifest)
    return sorted(f"{error.json_path}: {error.message}" for error in found)


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    jobset = _strict(json.loads(FILE.read_text(encoding="utf-8")))
    properties = jobset["properties"]
    template = properties["spec"]["properties"]["replicatedJobs"]["items"]["properties"]["template"]
    metadata = template["properties"]["metadata"]
    # A field of every object's metadata, which that of JobSet's templates leaves out.
    metadata["properties"]["generateName"] = {"type": "string"}
    properties["metadata"] = metadata
    schemas = {"JobSet": ("jobset.x-k8s.io/v1alpha2", jobset), "Job": ("batch/v1", template)}
    version, schema = schemas[kind]
    own = {"apiVersion": {"const": version}, "kind": {"const": kind}}
    return {
        **schema,
        "properties": {**schema["properties"], **own},
        "required": ["apiVersion", "kind", "metadata", "spec"],
    }


def _strict(node: Any) -> Any:
    """The schema with every object closed that lists its fields."""
    if isinstance(node, list):
        return [_strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _strict(part) for key, part in node.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
