"""The published schemas refuse what an API server would drop or refuse."""

import copy
from typing import Any

import pytest
from published_schema import problems

POD = {"restartPolicy": "Never", "containers": [{"name": "stage", "image": "titanflow", "command": ["true"]}]}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "one"},
    "spec": {"backoffLimit": 0, "template": {"spec": POD}},
}
JOBSET: dict[str, Any] = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {"name": "two"},
    "spec": {"replicatedJobs": [{"name": "nodes", "replicas": 1, "template": {"spec": JOB["spec"]}}]},
}
POD_OF = {
    "Job": ("spec", "template", "spec"),
    "JobSet": ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec"),
}


@pytest.mark.parametrize("manifest", [JOB, JOBSET], ids=lambda manifest: manifest["kind"])
def test_a_manifest_holds_and_a_typo_at_any_level_does_not(manifest: dict[str, Any]) -> None:
    assert problems(manifest) == []
    path = POD_OF[manifest["kind"]]
    for depth in range(len(path) + 1):
        spoilt = copy.deepcopy(manifest)
        place: Any = spoilt
        for key in path[:depth]:
            place = place[key]
        if isinstance(place, dict):
            place["spce"] = {}
            assert any("spce" in problem for problem in problems(spoilt)), path[:depth]


def test_what_is_required_and_of_which_type() -> None:
    spoilt = copy.deepcopy(JOB)
    del spoilt["spec"]["template"]["spec"]["containers"][0]["name"]
    spoilt["spec"]["backoffLimit"] = "none"
    found = problems(spoilt)
    assert len(found) == 2
    assert "'none' is not of type 'integer'" in found[0]
    assert "'name' is a required" in found[1]
