"""The memory that a job asks for against what its stage is forecast to take."""

from typing import Any

import pytest

from titanflow.config.module import Module
from titanflow.planning.cluster.asked_memory import asked_bytes, memory_problem
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.forecast.memory import Memory

GIB = 1 << 30
CPU, GPU = DeviceSpec("cpu", "two cores", 4 * GIB), DeviceSpec("cuda", "a GPU")
# Weights, gradients and moments are 4 GiB of a rank; with the copies 5 GiB at once.
FORECAST = Forecast("l", memory=Memory(GIB, GIB, 2 * GIB, GIB, 0, 0, 0, 0, 0, False), export=9 * GIB)


def launcher(kind: str, memory: str | None, processes: int = 2) -> dict[str, Any]:
    resources = {} if memory is None else {"memory": memory}
    settings = {"slurm": {"mem": memory}, "kubernetes": {"resources": resources}}
    return {"kind": kind, "nproc_per_node": processes, **settings}


def found(kind: str, memory: str | None, device: DeviceSpec = CPU, forecast: Forecast = FORECAST) -> tuple[str, str]:
    key = {"slurm": "slurm.mem", "kubernetes": "kubernetes.resources.memory"}[kind]
    origins = {f"launcher.{key}": "mine.yaml:7"}
    module = Module("sft", "sft", "torchtitan", {"launcher": launcher(kind, memory)}, origins)
    problem, doubt = memory_problem(module, forecast, device)
    return str(problem or ""), str(doubt or "")


@pytest.mark.parametrize(
    ("memory", "slurm", "kubernetes"),
    [
        ("64G", 64 * GIB, 64 * 10**9),
        # A number is MiB to Slurm, and bytes to Kubernetes.
        ("500", 500 << 20, 500),
        ("1T", 1 << 40, 10**12),
        (None, None, None),
    ],
)
def test_what_is_asked_for_in_bytes(memory: str | None, slurm: int | None, kubernetes: int | None) -> None:
    assert asked_bytes(launcher("slurm", memory)) == slurm
    assert asked_bytes(launcher("kubernetes", memory)) == kubernetes


def test_other_units_and_all_of_a_node() -> None:
    assert asked_bytes(launcher("kubernetes", "1.5Gi")) == 3 * GIB // 2
    assert asked_bytes(launcher("slurm", "8GB")) == 8 * GIB
    assert asked_bytes(launcher("slurm", "0")) is None


@pytest.mark.parametrize(("kind", "unit"), [("slurm", "G"), ("kubernetes", "Gi")])
def test_the_ranks_of_a_node_share_what_is_asked_for(kind: str, unit: str) -> None:
    # Two ranks take 8 GiB for certain and 10 GiB in all; the export takes 9 GiB.
    refused, doubt = found(kind, f"7{unit}")
    assert doubt == ""
    assert refused.startswith("mine.yaml:7: sft.launcher.")
    assert "found 7.0 GiB, and a node is forecast to take 10.0 GiB while it trains and 9.0 GiB while it exp" in refused
    assert "expected: at least 10.0 GiB" in refused
    refused, doubt = found(kind, f"9{unit}")
    assert refused == ""
    assert "expected: at least 10.0 GiB" in doubt
    assert found(kind, f"10{unit}") == ("", "")


def test_on_gpus_only_the_export_takes_the_nodes_memory() -> None:
    refused, doubt = found("slurm", "8G", GPU)
    assert refused == ""
    assert "a node is forecast to take 9.0 GiB while it exports the model" in doubt
    assert found("slurm", "9G", GPU) == ("", "")


def test_nothing_is_said_where_nothing_is_asked_for_or_known() -> None:
    assert found("slurm", None) == found("slurm", "0") == found("kubernetes", None) == ("", "")
    assert found("slurm", "1G", forecast=Forecast("l")) == ("", "")
