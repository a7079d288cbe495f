"""What the live view costs: processor time of the flow's own process while a training runs, with and without it.

``python benchmarks/live_view.py [--seconds 60] [EXPERIMENT OPTION …]`` starts ``titanflow run`` of that experiment, or
of stdlib, twice with an endless pretraining, in a terminal of 100 columns: as a person sees it, and with ``CI=1``,
which prints lines alone. From the first step on it looks at the process, not at its stages, for so many seconds.
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

from titanflow.run.contract import METRICS_FILE

ENDLESS = "--set=pretrain.training.steps=1000000"
POLL_SECONDS = 0.2
LIMIT = 0.01
"""The share of a core that the view may take."""


def share(options: list[str], seconds: float, environ: dict[str, str]) -> float:
    """Processor seconds a second of the flow's process during its training."""
    with tempfile.TemporaryDirectory() as folder:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "titanflow.cli.main", "run", *options, ENDLESS, "--workspace", folder],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **environ},
            start_new_session=True,
        )
        os.close(slave)
        # A terminal that nobody reads would stop the process.
        threading.Thread(target=_read, args=(master,), daemon=True).start()
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
    arguments, options = parser.parse_known_args()
    shares = [share(options or ["stdlib"], arguments.seconds, environ) for environ in ({"CI": "1"}, {"CI": "0"})]
    without, with_view = shares
    print(f"of a core: {without:.2%} without the view, {with_view:.2%} with it: {with_view - without:.2%} for the view")
    return 0 if with_view - without < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
