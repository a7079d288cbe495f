"""What the pipeline costs beyond its stages: ``titanflow run`` against the commands that its stages' logs show.

``python benchmarks/overhead.py [--steps 100] [--pairs 3]`` runs a shortened default experiment, once to have its
commands, then in pairs: the whole flow, with a Prefect server of its own, and the bare commands one after another, from
the same ``run.yaml`` files, each side with nothing prepared or trained before. It prints a line a pair: the seconds of
both, the seconds of the processor, which other work on the machine changes less, and the tokens per second of both
trainings, from the second logged step to the last; then the medians and whether they meet the targets. The order within
a pair alternates.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from titanflow.metrics_lines import read_metrics
from titanflow.stage import METRICS_FILE, RUN_FILE, STAGES

SECONDS = 10.0
"""What the pipeline may take of the clock beyond its stages."""
RATE = 0.99
"""The least share of a bare training's tokens per second that is left under the flow."""
TRAININGS = ("pretrain", "sft")
KEPT = ("plan.json", "manifest.json")
PREFIXES = ("PREFECT_", "WANDB_", "TITANFLOW_")


class Side(NamedTuple):
    """One run of all stages: seconds of the clock and of the processor, and the trainings' tokens per second."""

    wall: float
    processor: float
    rate: float


def settings(steps: int) -> list[str]:
    """The default experiment with fewer steps and one task."""
    chosen = {f"{stage}.training.steps": steps for stage in TRAININGS}
    chosen |= {f"{stage}.validation.enable": "false" for stage in TRAININGS}
    return [f"--set={key}={value}" for key, value in {**chosen, "evaluate.tasks": "[stdlib_kind]"}.items()]


def environment(root: Path) -> dict[str, str]:
    """The shell's own without what it says of Prefect and W&B; everything is written below ``root``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    return {**inherited, "TITANFLOW_WORKSPACE": str(root / "runs"), "PREFECT_HOME": str(root / "prefect")}


def run_flow(root: Path, steps: int) -> Path:
    """Runs the experiment as a user does; the run's folder."""
    check([sys.executable, "-m", "titanflow.cli", "run", "stdlib", *settings(steps)], root)
    return root / "runs" / "stdlib" / "main"


def check(command: list[str], root: Path) -> None:
    """Runs a command, and ends with its output where it fails."""
    done = subprocess.run(command, env=environment(root), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def bare_commands(folder: Path) -> dict[str, str]:
    """Each stage's command, as its log shows it."""
    logs = {stage: folder / stage / f"{stage}.log" for stage in STAGES}
    return {stage: log.read_text().splitlines()[0].removeprefix("$ ") for stage, log in logs.items()}


def measure(root: Path, begun: Path, commands: dict[str, str] | None, steps: int) -> Side:
    """Runs all stages from nothing: the bare ``commands``, or without them the flow.

    ``begun`` holds the files that the bare commands find: each stage's ``run.yaml``, and what its flow noted.
    """
    folder = root / "runs" / "stdlib" / "main"
    shutil.rmtree(root / "runs")
    if commands is not None:
        shutil.copytree(begun, folder)
    before, started = processor_seconds(), time.monotonic()
    if commands is None:
        run_flow(root, steps)
    else:
        for command in commands.values():
            check(["bash", "-c", command], root)
    return Side(time.monotonic() - started, processor_seconds() - before, rate(folder))


def processor_seconds() -> float:
    """What all processes took that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rate(folder: Path) -> float:
    """Tokens per second of the trainings together, without what comes before each one's second logged step."""
    tokens, seconds = 0, 0.0
    for stage in TRAININGS:
        records = read_metrics(folder / stage / METRICS_FILE)
        tokens += records[-1]["tokens"] - records[1]["tokens"]
        seconds += records[-1]["seconds"] - records[1]["seconds"]
    return tokens / seconds


def keep_beginnings(folder: Path, begun: Path) -> None:
    """Copies what the stages of a finished run were started from."""
    for stage in STAGES:
        (begun / stage).mkdir(parents=True)
        shutil.copy(folder / stage / RUN_FILE, begun / stage)
    for name in KEPT:
        shutil.copy(folder / name, begun)


def main() -> int:
    """Measures; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of each training, at least 20")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="titanflow-overhead-") as place:
        root, begun = Path(place), Path(place) / "begun"
        folder = run_flow(root, arguments.steps)
        commands = bare_commands(folder)
        keep_beginnings(folder, begun)
        beyond, ratios = [], []
        for pair in range(arguments.pairs):
            sides: dict[str, Side] = {}
            for side in ("flow", "bare") if pair % 2 == 0 else ("bare", "flow"):
                sides[side] = measure(root, begun, commands if side == "bare" else None, arguments.steps)
            flow, bare = sides["flow"], sides["bare"]
            beyond.append(flow.wall - bare.wall)
            ratios.append(flow.rate / bare.rate)
            print(
                f"flow {flow.wall:.1f} s, bare {bare.wall:.1f} s: {beyond[-1]:+.1f} s "
                f"(processor {flow.processor:.1f}, {bare.processor:.1f}: {flow.processor - bare.processor:+.1f}); "
                f"tokens/s {flow.rate:,.0f}, {bare.rate:,.0f}: {ratios[-1]:.3f}",
                flush=True,
            )
    seconds, ratio = median(beyond), median(ratios)
    met = seconds <= SECONDS and ratio >= RATE
    print(
        f"median {seconds:+.1f} s (target at most {SECONDS:g}), tokens/s {ratio:.3f} (target at least {RATE}): "
        f"{'met' if met else 'missed'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
