"""Runs of the tiny experiment in the cluster, from its command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from local_slurm import LocalSlurm
from tiny_experiment import ROOT
from watching import lines, wait_for

STEPS = 400
SETTINGS = (
    *("launcher.omp_num_threads=1", f"pretrain.training.steps={STEPS}", "pretrain.validation.enable=false"),
    *("pretrain.checkpoint.interval=10", "pretrain.comm.train_timeout_seconds=600", "retries.delay=1"),
)
IN_CLUSTER = ("launcher.kind=slurm", "launcher.nnodes=2")


class ClusterRun:
    """``titanflow run tiny`` beside the cluster's controller, again and again in the same folder."""

    def __init__(self, slurm: LocalSlurm, root: Path, name: str, settings: tuple[str, ...] = ()) -> None:
        self.slurm, self.root, self.name = slurm, root, name
        self.settings = (*IN_CLUSTER, *SETTINGS, *settings)
        self.folder = root / "runs" / "tiny" / name
        self.output = root / f"{name}.log"
        self.flow: subprocess.Popen[bytes] | None = None
        self.python_path = str(ROOT)

    def command(self, verb: str = "run") -> list[str]:
        options = ["--configs", str(self.root / "configs"), "--run", self.name]
        options += [part for setting in self.settings for part in ("--set", setting)]
        return [sys.executable, "-m", "titanflow.cli.main", verb, "tiny", *options]

    def start(self) -> None:
        with self.output.open("wb") as log:
            self.flow = subprocess.Popen(
                self.slurm.inside(self.command()),
                env={**self.slurm.env, "PYTHONPATH": self.python_path},
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> int:
        assert self.flow is not None
        return self.flow.wait(1800)

    def signal(self, number: int) -> int:
        """Sends a signal to all of the flow's processes, as a terminal does; returns the exit status."""
        assert self.flow is not None
        os.killpg(self.flow.pid, number)
        return self.wait()

    def interrupt(self) -> int:
        return self.signal(signal.SIGINT)

    def says(self, text: str) -> None:
        """Waits until the run's output has a text."""

        def found() -> bool:
            assert self.flow is not None
            said = self.output.read_text(errors="replace")
            assert text in said or self.flow.poll() is None, said[-3000:]
            return text in said

        wait_for(found, f"{text!r} in {self.output}", 180)

    def losses(self, stage: str = "pretrain") -> dict[int, float]:
        records = [json.loads(line) for line in lines(self.folder / stage / "metrics.jsonl") if line.endswith("}")]
        return {record["step"]: record["loss"] for record in records if "loss" in record}

    def step(self) -> int:
        return max(self.losses(), default=0)

    def trains(self, steps: int = 15) -> None:
        """Waits until so many steps more are done."""
        goal = self.step() + steps
        wait_for(lambda: self.step() >= goal, f"step {goal} of {self.name}", 300)

    def jobs(self, stage: str = "pretrain") -> list[tuple[str, str]]:
        """Id and state of each job that the stage had."""
        name = json.loads((self.folder / stage / "job.json").read_text())["name"]
        lines = self.slurm.output("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A %T")
        return sorted(((job, state) for job, state in map(str.split, lines.splitlines())), key=lambda job: int(job[0]))
