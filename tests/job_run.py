"""The tiny experiment's run whose stages are jobs, followed by what it prints and what its stages write."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from watching import lines, wait_for

PATIENCE = 1800.0
SETTINGS = (
    *("launcher.omp_num_threads=1", "pretrain.validation.enable=false", "pretrain.checkpoint.interval=10"),
    *("pretrain.comm.train_timeout_seconds=600", "retries.delay=1"),
)


class JobRun:
    """``titanflow run tiny``, again and again in the same folder; ``inside`` is how a command gets to the cluster."""

    def __init__(
        self,
        root: Path,
        name: str,
        env: Mapping[str, str],
        settings: tuple[str, ...],
        inside: Callable[[list[str]], list[str]] = list,
    ) -> None:
        self.root, self.name, self.env, self.settings = root, name, dict(env), (*SETTINGS, *settings)
        self.inside = inside
        self.folder = root / "runs" / "tiny" / name
        self.output = root / f"{name}.log"
        self.flow: subprocess.Popen[bytes] | None = None

    def command(self, verb: str = "run", *settings: str) -> list[str]:
        options = ["--configs", str(self.root / "configs"), "--run", self.name]
        options += [part for setting in (*self.settings, *settings) for part in ("--set", setting)]
        return self.inside([sys.executable, "-m", "titanflow.cli.main", verb, "tiny", *options])

    def start(self) -> None:
        with self.output.open("wb") as log:
            self.flow = subprocess.Popen(
                self.command(), env=self.env, cwd=self.root, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> int:
        assert self.flow is not None
        return self.flow.wait(PATIENCE)

    def signal(self, number: int) -> int:
        """Sends a signal to all of the flow's processes, as a terminal does; returns the exit status."""
        assert self.flow is not None
        os.killpg(self.flow.pid, number)
        return self.wait()

    def says(self, text: str) -> None:
        """Waits until the run's output has a text."""

        def found() -> bool:
            assert self.flow is not None
            said = self.output.read_text(errors="replace")
            assert text in said or self.flow.poll() is None, said[-3000:]
            return text in said

        wait_for(found, f"{text!r} in {self.output}", PATIENCE)

    def losses(self, stage: str = "pretrain") -> dict[int, float]:
        records = [json.loads(line) for line in lines(self.folder / stage / "metrics.jsonl") if line.endswith("}")]
        return {record["step"]: record["loss"] for record in records if "loss" in record}

    def step(self) -> int:
        return max(self.losses(), default=0)

    def trains(self, steps: int = 15) -> None:
        """Waits until so many steps more are done."""
        goal = self.step() + steps
        wait_for(lambda: self.step() >= goal, f"step {goal} of {self.name}", PATIENCE)

    def job(self, stage: str = "pretrain") -> dict[str, object]:
        """The record of the stage's newest job."""
        return json.loads((self.folder / stage / "job.json").read_text())
