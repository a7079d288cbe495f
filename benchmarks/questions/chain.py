"""What the pipeline costs beyond its stages.

Seconds: `titanflow run` of a shortened default experiment, with a Prefect server of its own, against the commands
that its stages' logs show, one after another from the same `run.yaml` files, each side with nothing prepared or
trained before. The trainings have few steps: what grows with them is the second figure, and here their own
differences would hide the rest.

Share: while the default pretraining runs under the live view in a terminal, the processor seconds that the flow and
its server take, as a share of all cores'. It is what the training could have at most without them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
from frame.bench import Bench
from frame.figures import Figure, Wanted
from frame.pairs import in_pairs
from frame.processes import Failed, environment, run, titanflow, tree

from titanflow.runs.contract import METRICS_FILE, RUN_FILE
from titanflow.runs.manifest import Manifest

SECONDS, SHARE = 10.0, 0.01
"""What the pipeline may take of the clock beyond its stages, and of the machine while one trains."""
STEPS = 20
ENDLESS = 10**6
KEPT = ("plan.json", "manifest.json")
WINDOW_SECONDS = 40.0
"""Longer than all that a flow does from time to time, the rarest of which is sending its log."""
START_SECONDS = 240.0


def measure(bench: Bench) -> None:
    seconds(bench)
    share(bench)


def seconds(bench: Bench) -> None:
    """Whole runs against their bare commands."""
    flow = titanflow("run", "stdlib", *shortened(2 if bench.toy else STEPS))
    run(flow, own_places(bench.folder))
    begun, nothing = bench.folder / "begun", bench.folder / "nothing"
    keep_beginnings(run_folder(bench.folder), begun)
    nothing.mkdir()
    bare = [["bash", "-c", command] for command in bare_commands(run_folder(bench.folder)).values()]

    def side(begins: Path, commands: list[list[str]]) -> float:
        shutil.rmtree(bench.folder / "runs")
        shutil.copytree(begins, run_folder(bench.folder))
        return sum(run(command, own_places(bench.folder)).wall for command in commands)

    # The run before was the warm-up.
    sides = [lambda: side(nothing, [flow]), lambda: side(begun, bare)]
    own, stages = in_pairs(sides, 1 if bench.toy else bench.pairs, warm_up=False)
    bench.found(
        Figure(
            what="whole run of four stages",
            unit="s",
            ours=own,
            theirs=stages,
            peer="its commands",
            higher_is_better=False,
        )
    )
    bench.found(
        Figure(
            what="of it beyond the commands",
            unit="s",
            ours=[whole - bare for whole, bare in zip(own, stages, strict=True)],
            higher_is_better=False,
            wanted=Wanted("value", "<=", SECONDS),
        )
    )


def share(bench: Bench) -> None:
    """The processor's share of the flow and its server beside a training."""
    shutil.rmtree(bench.folder / "runs", ignore_errors=True)
    window, cores = 2.0 if bench.toy else WINDOW_SECONDS, len(os.sched_getaffinity(0))
    with training(bench.folder) as flow:
        found = []
        for _ in range(2):
            before, began = beside_stages(flow), time.monotonic()
            time.sleep(window)
            found.append((beside_stages(flow) - before) / (time.monotonic() - began) / cores)
    bench.found(
        Figure(
            what="flow, server and live view beside a training",
            unit="of the cores",
            ours=found,
            higher_is_better=False,
            wanted=Wanted("value", "<=", SHARE),
            note=f"windows of {window:g} s; the highest {max(found):.4f}, the median {median(found):.4f}",
        )
    )


def beside_stages(flow: psutil.Popen) -> float:
    """Processor seconds of a flow and what it started, without its stages."""
    stages = {process.pid for process in tree(flow.pid) if "torch.distributed.run" in process.cmdline()}
    inside = {process.pid for pid in stages for process in tree(pid)}
    times = [process.cpu_times() for process in tree(flow.pid) if process.pid not in inside]
    return sum(time.user + time.system for time in times)


def shortened(steps: int) -> list[str]:
    """The default experiment with fewer steps and one task."""
    chosen: dict[str, object] = {f"{stage}.training.steps": steps for stage in ("pretrain", "sft")}
    chosen |= {f"{stage}.validation.enable": "false" for stage in ("pretrain", "sft")}
    return settings({**chosen, "evaluate.tasks": "[stdlib_kind]"})


def settings(chosen: dict[str, object]) -> list[str]:
    """Options of the command line."""
    return [f"--set={key}={value}" for key, value in chosen.items()]


def own_places(root: Path) -> dict[str, str]:
    """Everything is written below ``root``."""
    return {"TITANFLOW_WORKSPACE": str(root / "runs"), "PREFECT_HOME": str(root / "prefect")}


def run_folder(root: Path) -> Path:
    """Where the experiment writes."""
    return root / "runs" / "stdlib" / "main"


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


@contextlib.contextmanager
def training(root: Path) -> Iterator[psutil.Popen]:
    """The default pretraining without an end, in a terminal of 100 columns; gives the flow's process."""
    chosen: dict[str, object] = {"training.steps": ENDLESS, "checkpoint.interval": ENDLESS}
    chosen |= {"validation.enable": "false", "metrics.log_freq": 2}
    command = titanflow("run", "stdlib", *settings({f"pretrain.{key}": value for key, value in chosen.items()}))
    master, slave = terminal()
    env = environment({**own_places(root), "TERM": "xterm-256color", "CI": "0"})
    flow = psutil.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        metrics, began = run_folder(root) / "pretrain" / METRICS_FILE, time.monotonic()
        while not metrics.is_file() or len(metrics.read_bytes().splitlines()) < 10:
            if flow.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise Failed(f"{' '.join(command)} made no step: {flow.poll()}")
            # Nothing is measured yet: a look a second is soon enough.
            time.sleep(1.0)
        yield flow
    finally:
        started = tree(flow.pid)
        flow.send_signal(signal.SIGINT)
        psutil.wait_procs(started, timeout=60)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os.close(master)


def terminal() -> tuple[int, int]:
    """A terminal of 100 columns: its other end, which is read, and the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    # A terminal that nobody reads would stop the process.
    threading.Thread(target=read, args=(master,), daemon=True).start()
    return master, slave


def read(master: int) -> None:
    """Reads what a process prints, to the end."""
    with contextlib.suppress(OSError):
        while os.read(master, 1 << 16):
            pass
