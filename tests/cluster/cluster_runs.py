"""Runs of the tiny experiment in the cluster, from its command line."""

from pathlib import Path

from job_run import JobRun
from local_slurm import LocalSlurm
from tiny_experiment import ROOT

STEPS = 400
IN_CLUSTER = ("launcher.kind=slurm", "launcher.nnodes=2")
ON_ONE_MACHINE = ("launcher.kind=local", "launcher.nnodes=1", "launcher.nproc_per_node=2")


class ClusterRun(JobRun):
    """A run beside the cluster's controller."""

    def __init__(self, slurm: LocalSlurm, root: Path, name: str, settings: tuple[str, ...] = ()) -> None:
        env = {**slurm.env, "PYTHONPATH": str(ROOT)}
        super().__init__(root, name, env, (*IN_CLUSTER, f"pretrain.training.steps={STEPS}", *settings), slurm.inside)
        self.slurm = slurm

    def jobs(self, stage: str = "pretrain") -> list[tuple[str, str]]:
        """Id and state of each job that the stage had."""
        asked = f"--name={self.job(stage)['name']}"
        lines = self.slurm.output("squeue", "--noheader", "--states=all", asked, "--format=%A %T")
        return sorted(((job, state) for job, state in map(str.split, lines.splitlines())), key=lambda job: int(job[0]))
