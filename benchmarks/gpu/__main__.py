"""All that needs a GPU, measured and proved in ten minutes: ``python benchmarks/gpu [--toy] [--json FILE]``.

Prints a line with a verdict for each question: training against plain torchtitan with the same flags, and the memory
that was forecast for it (Qwen3 0.6B and 1.7B, Llama 3.1 8B; rows of 4k and 8k); packed fine-tuning; documents kept
apart by varlen and flex attention; FSDP on one rank; a kill and a resume; export and evaluation; the lease of a GPU,
and a worker for each. Weights are random and made on the spot, so that nothing is downloaded.

Each check is a process of its own with a time limit, so that one that fails or hangs loses no other. ``--toy`` has
models and steps of toy size, for a CPU; only what can't exist there is not run. ``--only`` names checks. The status is
0 if no verdict is ``missed`` or ``failed``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import attention
import evaluation
import packed
import resume
import sharded
import training
import turns
from place import Place, Row, Verdict
from stages import end_tree

VERSIONS = ("titanflow", "torch", "torchtitan", "transformers", "triton")
MINUTES = 10.0
CLOSE = 5.0
"""Seconds that a check has less than its process, to end by itself."""


@dataclass(frozen=True)
class Check:
    """What a process finds out: its rows by name, in order, and the seconds that it may take, on a GPU and as a toy."""

    name: str
    rows: Sequence[str]
    run: Callable[..., Iterator[Row]]
    seconds: float
    toy_seconds: float = 900.0


def pretraining(model: str, seq_len: int) -> Check:
    run = partial(training.check, name=model, seq_len=seq_len)
    return Check(f"{model} {seq_len // 1024}k", training.rows_of(model, seq_len), run, training.MODELS[model].seconds)


CHECKS = (
    Check("fsdp", sharded.ROWS, sharded.check, 60),
    Check("resume", resume.ROWS, resume.check, 75),
    Check("evaluation", evaluation.ROWS, evaluation.check, 90),
    Check("lease", turns.LEASE_ROWS, turns.lease, 60),
    Check("workers", turns.WORKER_ROWS, turns.workers, 75),
    Check("attention", attention.ROWS, attention.check, 60),
    *(pretraining(model, 4096) for model in training.MODELS),
    Check("packed", packed.ROWS, packed.check, 75),
    *(pretraining(model, 8192) for model in training.MODELS),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy sizes, for a CPU")
    parser.add_argument("--only", nargs="+", metavar="CHECK", choices=[check.name for check in CHECKS])
    parser.add_argument("--minutes", type=float, help="for all together; 10, and as a toy no limit")
    parser.add_argument("--json", type=Path, help="a file for the verdicts with their figures, machine and versions")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.check:
        check = next(check for check in CHECKS if check.name == given.check)
        run_check(check, Place(given.folder, given.toy), given.seconds)
        return
    chosen = [check for check in CHECKS if not given.only or check.name in given.only]
    began = time.monotonic()
    minutes = given.minutes if given.minutes is not None else float("inf") if given.toy else MINUTES
    rows: list[Row] = []
    for check in chosen:
        rows += rows_of(check, given.toy, began + 60 * minutes)
        seconds = time.monotonic() - began
        if given.json:
            # After each check: whatever ends this process later loses no verdict.
            given.json.write_text(json.dumps(report(rows, given.toy, seconds), indent=1), encoding="utf-8")
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in get_args(Verdict)}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f"; {seconds:.0f} s")
    sys.exit(1 if counts["missed"] + counts["failed"] else 0)


def rows_of(check: Check, toy: bool, until: float) -> list[Row]:
    """Runs a check in a process of its own, and prints each of its rows; those that it didn't come to have failed."""
    seconds = min(check.toy_seconds if toy else check.seconds, until - time.monotonic())
    with tempfile.TemporaryDirectory(prefix="titanflow-gpu-") as name:
        place = Place(Path(name), toy)
        began = time.monotonic()
        error = "no time is left" if seconds <= CLOSE else in_process(check, place, seconds)
        rows = [*place.rows(), *missing(check, place.rows(), error)]
        for row in rows:
            print(f"{row.verdict:8}{row.name:38}{row.found}  (wanted: {row.wanted})", flush=True)
        print(f"        {check.name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def in_process(check: Check, place: Place, seconds: float) -> str:
    """Runs a check; returns why it came to no end, or nothing."""
    command = [sys.executable, str(Path(__file__).parent), "--check", check.name, "--folder", str(place.folder)]
    command += ["--seconds", str(seconds - CLOSE), *(["--toy"] if place.toy else [])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"took more than {seconds:.0f} s"
    finally:
        end_tree(process.pid)
        process.wait()
    return "\n".join(said.strip().splitlines()[-1:]) if process.returncode else ""


def missing(check: Check, rows: Sequence[Row], error: str) -> list[Row]:
    """A row for each verdict that a check owes."""
    there = {row.name for row in rows}
    verdict = "not run" if error.startswith("no time") else "failed"
    return [Row(name, "a verdict", error or "no verdict", verdict) for name in check.rows if name not in there]


def run_check(check: Check, place: Place, seconds: float) -> None:
    """What the process of a check does."""
    try:
        for row in check.run(place=place, seconds=seconds):
            place.add(row)
    except Exception as error:
        traceback.print_exc()
        # The last line is what the row shows.
        print(f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}", file=sys.stderr)
        sys.exit(1)


def report(rows: Sequence[Row], toy: bool, seconds: float) -> dict[str, Any]:
    device = Place(Path(), toy).device
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    return {
        "command": " ".join(["python", "benchmarks/gpu", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "device": {"name": device.name, "memory": device.memory},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "toy": toy,
        "seconds": round(seconds),
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    main()
