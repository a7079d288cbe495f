"""Data prepared by the nodes of a real Slurm: the bytes of one machine, also when a node is lost on the way."""

import os
from pathlib import Path

import pytest
from cluster_runs import ON_ONE_MACHINE, ClusterRun
from local_slurm import LocalSlurm
from tiny_experiment import ROOT, leave_out_fine_tuning, write_tiny_experiment
from watching import wait_for

from titanflow.common.digests import folder_digests

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# In each process that Python starts with this on its path: small parts, and none is taken after the fourth while a file
# is there, so that the node is lost on the way however fast the machine is.
HELD = """
import time
from pathlib import Path
from titanflow.data.parts import task, work
work.PART_BYTES, claim = 60_000, task._claim
def held(parts):
    while Path({held!r}).exists() and len(list(parts.folder.glob("*.arrow"))) > 3:
        time.sleep(0.1)
    return claim(parts)
task._claim = held
"""
IN_CLUSTER = ("prepare.launcher.kind=slurm", "prepare.launcher.nnodes=2", "prepare.launcher.nproc_per_node=1")


def test_a_node_that_is_lost_costs_only_its_parts(tmp_path: Path, slurm: LocalSlurm) -> None:
    leave_out_fine_tuning(write_tiny_experiment(tmp_path))
    text = (tmp_path / "text.txt").read_text()
    (tmp_path / "text.txt").write_text(text * 60)
    data = tmp_path / "configs" / "data" / "text.yaml"
    data.write_text(data.read_text() + "document: line\n")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "sitecustomize.py").write_text(HELD.format(held=str(tmp_path / "held")))
    (tmp_path / "held").touch()

    run = ClusterRun(
        slurm, tmp_path, "nodes", ("launcher.kind=local", "launcher.nnodes=1", *IN_CLUSTER, "pretrain.training.steps=2")
    )
    run.env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path / "small")])
    stage, prepared = run.folder / "prepare", tmp_path / "runs" / "data"
    run.start()
    wait_for(lambda: len(list(stage.glob("parts/*/*.arrow"))) > 3, "finished parts", 300)
    slurm.power_off("node2")
    run.says("lost a node; it resumes from")
    (tmp_path / "held").unlink()
    slurm.power_on("node2")
    assert run.wait() == 0, run.output.read_text()[-3000:]
    assert "finished parts" in run.output.read_text()
    assert [state for _, state in run.jobs("prepare")] == ["NODE_FAIL", "COMPLETED"]
    assert not list(stage.glob("parts*")) + list(stage.glob("crew-*"))
    by_nodes = folder_digests(prepared)

    prepared.rename(tmp_path / "by-nodes")
    alone = ClusterRun(slurm, tmp_path, "alone", (*ON_ONE_MACHINE, "pretrain.training.steps=2"))
    alone.start()
    assert alone.wait() == 0, alone.output.read_text()[-3000:]
    assert folder_digests(prepared) == by_nodes
