"""The checks of a GPU, at toy size on a CPU: each has a verdict, also if it fails, hangs or has no time."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import ROOT

FOLDER = ROOT / "benchmarks" / "gpu"


def run(tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON of a run at toy size."""
    file = tmp_path / "gpu.json"
    command = [sys.executable, str(FOLDER), "--toy", "--json", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert file.exists(), done.stderr
    return done.returncode, json.loads(file.read_text(encoding="utf-8"))


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in report["rows"]}


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """What the program's first file has."""
    return runpy.run_path(str(FOLDER), run_name="gpu")


def test_without_time_each_row_says_so(tmp_path: Path, program: dict[str, Any]) -> None:
    status, report = run(tmp_path, "--minutes", "0")
    names = [name for check in program["CHECKS"] for name in check.rows]
    assert len(set(names)) == len(names)
    assert (status, verdicts(report)) == (0, dict.fromkeys(names, "not run"))
    assert {row["found"] for row in report["rows"]} == {"no time is left"}
    assert report["versions"]["torchtitan"] == "0.2.2"


def test_a_check_that_fails_or_hangs_has_failed_rows(tmp_path: Path, program: dict[str, Any]) -> None:
    place = program["Place"](tmp_path, True)
    place.add(program["Row"]("one", "1", "1", "met"))
    check = program["Check"]("no such check", ["one", "two"], lambda: None, 60.0)
    error = program["in_process"](check, place, 60.0)
    assert error == "StopIteration"
    assert [(row.name, row.verdict) for row in program["missing"](check, place.rows(), error)] == [("two", "failed")]
    hangs = next(check for check in program["CHECKS"] if check.name == "fsdp")
    assert program["in_process"](hangs, place, 0.1) == "took more than 0 s"


@pytest.mark.slow
def test_what_a_cpu_can_do_is_done_and_the_rest_says_that_it_needs_cuda(tmp_path: Path) -> None:
    status, report = run(tmp_path, "--only", "fsdp", "lease", "Llama 3.1 8B 4k")
    found = verdicts(report)
    assert found.pop("Llama 3.1 8B, 4k: speed") in ("met", "missed")
    assert found == {
        "FSDP on one rank: llama3": "met",
        "FSDP on one rank: qwen3": "met",
        "a GPU's lease": "not run",
        "Llama 3.1 8B, 4k: memory forecast": "met",
    }
    assert status in (0, 1)
    speed = next(row for row in report["rows"] if row["name"].endswith("speed"))
    assert min(speed["figures"]["tokens_per_second"], speed["figures"]["plain_tokens_per_second"]) > 0
