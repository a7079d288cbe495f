"""Turns: who is measured when, what a window counts, and that nothing is left running."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from frame.pairs import in_pairs
from frame.processes import Failed, MemoryPeak, run
from frame.stage import peer_steps, trained_tokens
from frame.trainings import Side, in_turns, losses_of

STEPS = """
import json, os, sys, time
work = float(sys.argv[2])
with open(sys.argv[1], "w") as file:
    for step in range(10**6):
        time.sleep(0.02)
        print(json.dumps({"seconds": time.perf_counter(), "work": work, "loss": 1 / (step + 1)}), file=file, flush=True)
"""
ENDS = "print('out of memory'); raise SystemExit(3)"


def side(folder: Path, name: str, work: float, program: str = STEPS) -> Side:
    path = folder / f"{name}.py"
    path.write_text(program)
    records = folder / f"{name}.jsonl"
    return Side(name, [sys.executable, str(path), str(records), str(work)], records, peer_steps, {})


def test_the_order_within_a_pair_alternates_after_a_first_round() -> None:
    called: list[str] = []
    sides = [lambda: called.append("ours") or len(called), lambda: called.append("theirs") or len(called)]
    found = in_pairs(sides, 3)
    assert called == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found == [[3, 6, 7], [4, 5, 8]]


def test_two_trainings_are_compared_by_what_they_do(tmp_path: Path) -> None:
    ours, theirs = in_turns([side(tmp_path, "ours", 6.0), side(tmp_path, "theirs", 2.0)], pairs=3, seconds=0.3)
    ratios = [own / other for own, other in zip(ours.rates, theirs.rates, strict=True)]
    # Both sleep as long in each step, so that the work a step is the ratio.
    assert sorted(ratios)[1] == pytest.approx(3.0, rel=0.3)
    assert ours.losses[:3] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert ours.megabytes > 1
    assert still_running(tmp_path) == []


def test_a_training_that_ends_is_reported_with_its_output_and_the_other_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"theirs ended with 3:\s+out of memory"):
        in_turns([side(tmp_path, "ours", 1.0), side(tmp_path, "theirs", 1.0, ENDS)], pairs=1, seconds=0.1)
    assert still_running(tmp_path) == []


def test_losses_are_those_of_the_first_steps(tmp_path: Path) -> None:
    assert losses_of([side(tmp_path, "ours", 1.0)], 2) == [[1.0, 0.5]]


def test_a_failed_command_says_what_it_printed() -> None:
    with pytest.raises(Failed, match=r"ended with 3:\s+out of memory"):
        run([sys.executable, "-c", ENDS])


def test_memory_is_that_of_a_process_and_its_children() -> None:
    holds = "import time; held = bytearray(60_000_000); held[::4096] = b'1' * len(held[::4096]); time.sleep(0.5)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    assert 60 < run([sys.executable, "-c", program]).megabytes < 110


def test_memory_of_a_process_that_has_ended_is_none() -> None:
    process = psutil.Popen([sys.executable, "-c", "pass"])
    process.wait()
    with MemoryPeak(process.pid) as peak:
        pass
    assert peak.megabytes == 0


def test_trained_tokens_come_from_the_rates_of_a_record() -> None:
    first = {"loss": 3.0, "tokens": 100, "tokens_per_second": 50.0, "trained_tokens_per_second": 20.0, "seconds": 2.0}
    second = {"loss": 2.0, "tokens": 160, "tokens_per_second": 60.0, "seconds": 3.0}
    found = trained_tokens([first, {"validation_loss": 1.0}, second])
    assert [(step.work, step.seconds) for step in found] == [(40.0, 2.0), (60.0, 3.0)]


def still_running(folder: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line and "pytest" not in line]
