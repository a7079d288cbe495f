"""What the live view costs: processor time of the flow's own process while a training runs.

``python benchmarks/live_view.py [--seconds 60] [EXPERIMENT OPTION …]`` starts ``titanflow run`` of that experiment, or
of stdlib, twice with an endless pretraining, in a terminal of 100 columns: as a person sees it, and with ``CI=1``,
which prints lines alone. From the first step on it looks at the process, not at its stages, for so many seconds.

``--alone`` draws the view in this process, of five stages and with ten records and twenty lines of log every two
seconds, and starts nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import psutil

from flows.live.run_view import RunView
from flows.live.screen import Screen
from tasks.ui.standing import Standing
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import KINDS, METRICS_FILE, StageRun

ENDLESS = "--set=pretrain.training.steps=1000000"
POLL_SECONDS = 0.2
LIMIT = 0.01
"""The share of a core that the view may take."""


def alone(seconds: float) -> float:
    """Processor seconds a second of the view by itself."""
    master, slave = _terminal()
    with tempfile.TemporaryDirectory() as folder, os.fdopen(slave, "w", encoding="utf-8") as terminal:
        plan = _plan(Path(folder))
        view, log = RunView(plan), plan.stages[1].run.folder / "pretrain.log"
        standing = Standing(plan.stages[1].run)
        with Screen(view, terminal):
            view.begins(standing)
            before, began, step = time.process_time(), time.monotonic(), 0
            while time.monotonic() - began < seconds:
                records = [{"step": step + more, "loss": 3.0, "tokens_per_second": 1e4} for more in range(1, 11)]
                step += len(records)
                standing.add(records, time.monotonic())
                with log.open("a", encoding="utf-8") as file:
                    file.write("[titan] 2026-11-30 03:19:24,441 - root - INFO - step: 1  loss: 3.0\n" * 20)
                time.sleep(2.0)
            found = (time.process_time() - before) / (time.monotonic() - began)
    os.close(master)
    return found


def _plan(folder: Path) -> Plan:
    stages = []
    for stage in KINDS:
        (folder / stage).mkdir()
        config = {"training": {"steps": 1_000_000}}
        run = StageRun(stage=stage, experiment="any", run="main", folder=folder / stage, config=config)
        stages.append(StagePlan(stage, "RUN", "new", run))
    return Plan("any", "main", folder, stages, None)  # type: ignore[arg-type]


def _terminal() -> tuple[int, int]:
    """A terminal of 100 columns: its other end, which is read, and the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    # A terminal that nobody reads would stop the process.
    threading.Thread(target=_read, args=(master,), daemon=True).start()
    return master, slave


def share(options: list[str], seconds: float, environ: dict[str, str]) -> float:
    """Processor seconds a second of the flow's process during its training."""
    with tempfile.TemporaryDirectory() as folder:
        master, slave = _terminal()
        process = subprocess.Popen(
            [sys.executable, "-m", "titanflow.cli.main", "run", *options, ENDLESS, "--workspace", folder],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **environ},
            start_new_session=True,
        )
        os.close(slave)
        try:
            while not list(Path(folder).glob(f"*/*/pretrain/{METRICS_FILE}")):
                if process.poll() is not None:
                    sys.exit(f"the run ended with {process.returncode} before it trained")
                time.sleep(POLL_SECONDS)
            time.sleep(5.0)
            before, began = _taken(process.pid), time.monotonic()
            time.sleep(seconds)
            return (_taken(process.pid) - before) / (time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            os.close(master)


def _taken(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _read(master: int) -> None:
    try:
        while os.read(master, 1 << 16):
            pass
    except OSError:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--alone", action="store_true")
    arguments, options = parser.parse_known_args()
    if arguments.alone:
        found = alone(arguments.seconds)
        print(f"of a core: {found:.2%} for the view alone")
        return 0 if found < LIMIT else 1
    shares = [share(options or ["stdlib"], arguments.seconds, environ) for environ in ({"CI": "1"}, {"CI": "0"})]
    without, with_view = shares
    print(f"of a core: {without:.2%} without the view, {with_view:.2%} with it: {with_view - without:.2%} for the view")
    return 0 if with_view - without < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
