import subprocess
import sys
from typing import Any

import pytest

from titanflow.families import (
    OWN_FAMILIES,
    PARAMETER_GROUPS,
    export_refusal,
    packing_refusals,
    routed_refusals,
    supported_families,
)


@pytest.mark.parametrize(
    ("family", "args", "reason"),
    [
        ("deepseek_v3", {}, "no export for the model family 'deepseek_v3'; supported: llama3, qwen3"),
        ("qwen3", {"moe_enabled": True}, "with experts"),
        ("qwen3", {"qk_norm": False}, "qk_norm=False"),
    ],
)
def test_a_model_without_an_export_is_refused_by_name(family: str, args: dict[str, Any], reason: str) -> None:
    assert reason in export_refusal(family, args)


def test_supported_families_are_known_without_torch() -> None:
    code = "import sys, titanflow.families as f; print(f.supported_families(), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == f"{supported_families()} False"
    assert not any(export_refusal(family) for family in supported_families())


@pytest.mark.parametrize("family", ["llama3", "qwen3", "deepseek_v3", "a_users_own"])
def test_rows_may_be_packed_where_documents_can_be_kept_apart(family: str) -> None:
    assert packing_refusals(family, context_parallel=1, pipeline_parallel=1) == {}


def test_every_reason_against_packed_rows_is_told_at_once() -> None:
    refusals = packing_refusals("llama4", context_parallel=2, pipeline_parallel=2)
    degrees = ["parallelism.context_parallel_degree", "parallelism.pipeline_parallel_degree"]
    assert list(refusals) == ["model.name", *degrees]
    assert "llama4" in refusals["model.name"]


def test_a_routed_model_may_be_sharded_and_replicated() -> None:
    degrees = {"parallelism.data_parallel_shard_degree": 4, "parallelism.data_parallel_replicate_degree": 2}
    assert routed_refusals(degrees) == {}


def test_every_reason_against_routing_is_told_at_once() -> None:
    degrees = {f"parallelism.{kind}_parallel_degree": 2 for kind in ("tensor", "context", "pipeline")}
    assert list(routed_refusals(degrees, "varlen")) == [*degrees, "model.attn_type"]


def test_the_families_with_groups_are_ours() -> None:
    assert set(PARAMETER_GROUPS) == {"mod", "dtf", "tdtf"} <= set(OWN_FAMILIES)
