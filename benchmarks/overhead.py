"""What the pipeline costs beyond its stages: ``titanflow run`` against the commands that its stages' logs show.

``python benchmarks/overhead.py [--steps 50] [--pairs 5] [--windows 10]`` measures two things and prints whether they
meet their targets.

The seconds of the clock: a shortened default experiment runs once to have its commands, then in pairs: the whole flow,
with a Prefect server of its own, and the bare commands one after another, from the same ``run.yaml`` files, each side
with nothing prepared or trained before. The order within a pair alternates. The trainings are short: what grows with
them is what the second measurement finds, and here their own differences would hide the rest.

The training's tokens per second: the default pretraining runs in the flow, which is suspended together with its server
in every other window, so that the training is as alone as under the bare command. A window's rate is compared with that
of its neighbour: between two whole runs a shared machine changes its speed by more than what is looked for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple

import psutil

from titanflow.runs.contract import METRICS_FILE, RUN_FILE
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import read_metrics

SECONDS = 10.0
"""What the pipeline may take of the clock beyond its stages."""
RATE = 0.99
"""The least share of a bare training's tokens per second that is left under the flow."""
WINDOW_SECONDS = 60.0
"""A window holds all that a flow does from time to time, the rarest of which is sending its log. It also holds what the
flow tells after its rest, so that it is charged for no less than it does otherwise."""
ENDLESS = 10**6
KEPT = ("plan.json", "manifest.json")
PREFIXES = ("PREFECT_", "WANDB_", "TITANFLOW_")


class Side(NamedTuple):
    """One run of all stages: seconds of the clock and of the processor."""

    wall: float
    processor: float


def shortened(steps: int) -> list[str]:
    """The default experiment with fewer steps and one task."""
    chosen = {f"{stage}.training.steps": steps for stage in ("pretrain", "sft")}
    chosen |= {f"{stage}.validation.enable": "false" for stage in ("pretrain", "sft")}
    return settings({**chosen, "evaluate.tasks": "[stdlib_kind]"})


def settings(chosen: dict[str, object]) -> list[str]:
    """Options of the command line."""
    return [f"--set={key}={value}" for key, value in chosen.items()]


def environment(root: Path) -> dict[str, str]:
    """The shell's own without what it says of Prefect and W&B; everything is written below ``root``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    return {**inherited, "TITANFLOW_WORKSPACE": str(root / "runs"), "PREFECT_HOME": str(root / "prefect")}


def flow_command(options: list[str]) -> list[str]:
    """What a user types."""
    return [sys.executable, "-m", "titanflow.cli.main", "run", "stdlib", *options]


def run_folder(root: Path) -> Path:
    """Where the experiment writes."""
    return root / "runs" / "stdlib" / "main"


def check(command: list[str], root: Path) -> None:
    """Runs a command, and ends with its output where it fails."""
    done = subprocess.run(command, env=environment(root), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def bare_commands(folder: Path) -> dict[str, str]:
    """Each stage's command, as its log shows it."""
    logs = {stage: folder / stage / f"{stage}.log" for stage in Manifest.open(folder).stages}
    return {stage: log.read_text().splitlines()[0].removeprefix("$ ") for stage, log in logs.items()}


def keep_beginnings(folder: Path, begun: Path) -> None:
    """Copies what the stages of a finished run were started from."""
    for stage in Manifest.open(folder).stages:
        (begun / stage).mkdir(parents=True)
        shutil.copy(folder / stage / RUN_FILE, begun / stage)
    for name in KEPT:
        shutil.copy(folder / name, begun)


def measure(root: Path, begun: Path, commands: list[list[str]]) -> Side:
    """Runs ``commands`` with nothing but the files of ``begun``: each stage's ``run.yaml``, what its flow noted."""
    shutil.rmtree(root / "runs")
    shutil.copytree(begun, run_folder(root))
    before, started = processor_seconds(), time.monotonic()
    for command in commands:
        check(command, root)
    return Side(time.monotonic() - started, processor_seconds() - before)


def processor_seconds() -> float:
    """What all processes took that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_beyond(root: Path, steps: int, pairs: int) -> float:
    """How much longer the flow takes than the bare commands; a median."""
    flow = flow_command(shortened(steps))
    check(flow, root)
    begun, nothing = root / "begun", root / "nothing"
    keep_beginnings(run_folder(root), begun)
    nothing.mkdir()
    bare = [["bash", "-c", command] for command in bare_commands(run_folder(root)).values()]
    ways = {"flow": (nothing, [flow]), "bare": (begun, bare)}
    beyond = []
    for pair in range(pairs):
        sides = {way: measure(root, *ways[way]) for way in (ways if pair % 2 == 0 else reversed(ways))}
        beyond.append(sides["flow"].wall - sides["bare"].wall)
        more = sides["flow"].processor - sides["bare"].processor
        print(
            f"flow {sides['flow'].wall:.1f} s, bare {sides['bare'].wall:.1f} s: {beyond[-1]:+.1f} s "
            f"(processor {more:+.1f} s)",
            flush=True,
        )
    return median(beyond)


@contextlib.contextmanager
def training(root: Path) -> Iterator[list[psutil.Process]]:
    """The default pretraining without an end; gives the flow's own process and its server's."""
    chosen = {"training.steps": ENDLESS, "checkpoint.interval": ENDLESS, "validation.enable": "false"}
    chosen |= {"metrics.log_freq": 2}
    command = flow_command(settings({f"pretrain.{key}": value for key, value in chosen.items()}))
    with (root / "training.log").open("w") as log:
        flow = psutil.Popen(command, env=environment(root), stdout=log, stderr=subprocess.STDOUT)
    try:
        while len(logged(root)) < 20:
            if flow.poll() is not None:
                sys.exit(f"{' '.join(command)} failed:\n{(root / 'training.log').read_text()[-3000:]}")
            # Nothing is measured yet: a look a second is soon enough.
            time.sleep(1.0)
        servers = [child for child in flow.children() if "flows.server.own_server" in child.cmdline()]
        yield [flow, *servers]
    finally:
        flow.terminate()
        flow.wait()


def logged(root: Path) -> list[dict[str, float]]:
    """The records of the pretraining."""
    path = run_folder(root) / "pretrain" / METRICS_FILE
    return read_metrics(path) if path.is_file() else []


@contextlib.contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    """Lets processes rest for as long as the block lasts: a resting one could not even be ended."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


def rate(root: Path) -> float:
    """Tokens per second of one window."""
    begun = len(logged(root))
    time.sleep(WINDOW_SECONDS)
    first, *_, last = logged(root)[begun:]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


def rates_left(root: Path, windows: int) -> list[float]:
    """For each pair of windows the rate under the flow as a share of that without it."""
    shutil.rmtree(root / "runs", ignore_errors=True)
    shares = []
    with training(root) as pipeline:
        for pair in range(windows):
            rates = {}
            for alone in (False, True) if pair % 2 == 0 else (True, False):
                with suspended(pipeline if alone else []):
                    rates[alone] = rate(root)
            shares.append(rates[False] / rates[True])
            print(f"tokens/s {rates[False]:,.0f}, alone {rates[True]:,.0f}: {shares[-1]:.3f}", flush=True)
    return shares


def main() -> int:
    """Measures; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="of each training")
    parser.add_argument("--pairs", type=int, default=5, help="of whole runs, at least 1")
    parser.add_argument("--windows", type=int, default=10, help="pairs of a minute each in one training, at least 2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="titanflow-overhead-") as root:
        seconds = seconds_beyond(Path(root), arguments.steps, arguments.pairs)
        shares = rates_left(Path(root), arguments.windows)
    error = stdev(shares) / len(shares) ** 0.5
    met = seconds <= SECONDS and mean(shares) >= RATE
    print(
        f"{seconds:+.1f} s (median; target at most {SECONDS:g}), tokens/s {mean(shares):.4f} ± {error:.4f} (standard "
        f"error; target at least {RATE}): {'met' if met else 'missed'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
