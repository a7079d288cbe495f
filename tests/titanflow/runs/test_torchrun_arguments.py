"""The ranks whose lines a log shows."""

import pytest

from titanflow.runs.torchrun import arguments


@pytest.mark.parametrize(
    ("processes", "machines", "parallelism", "shown"),
    [
        (4, 1, {"pipeline_parallel_degree": 1}, "0"),
        (4, 1, {"pipeline_parallel_degree": 2}, "0,2"),
        (4, 1, {"pipeline_parallel_degree": 4}, "0,3"),
        (4, 1, {"pipeline_parallel_degree": 4, "pipeline_parallel_schedule": "ZBVZeroBubble"}, "0"),
        # The last stage begins with another machine's first process.
        (8, 2, {"pipeline_parallel_degree": 2}, "0"),
        (8, 2, {"pipeline_parallel_degree": 4}, "0,4"),
        (2, 1, None, "0"),
    ],
)
def test_a_pipelines_losses_are_logged(
    processes: int, machines: int, parallelism: dict[str, object] | None, shown: str
) -> None:
    launcher = {"kind": "slurm", "nproc_per_node": processes, "nnodes": machines}
    config = {"launcher": launcher, "parallelism": parallelism}
    assert f"--local-ranks-filter={shown}" in arguments(config)
