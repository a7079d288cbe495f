"""Speed and memory beside peers and limits: ``python benchmarks/bench.py [QUESTION …]``, or ``make bench``.

Each question is a file of ``questions/`` and runs as a process of its own, so that one that fails loses no other.
Both sides of a question are measured in the same run and in turns. The figures go to the terminal and, as JSON, to
``--json`` (docs/performance.json); of a question that isn't asked the file keeps what it has. ``--page`` makes
docs/performance.md of that file: after a measurement, and alone where no question is asked but ``none``.

The exit status is 0 whatever was found, since a benchmark is no test; 1 if a question failed to measure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, from_json
from frame.machine import machine
from frame.page import COLUMNS, page, row
from frame.processes import ROOT, ended_with, environment, python
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS, PAGE = ROOT / "docs" / "performance.json", ROOT / "docs" / "performance.md"
QUESTIONS = ("training", "sft", "preferences", "prepare", "evaluation", "weights", "memory", "startup", "chain")
"""In this order, so that the limits beside the first ones are measured close to them."""
TOLD = ("figure", "here", "peer", "ratio", "wanted", "verdict", "of it")
"""The page's columns that a terminal has room for."""
LIMIT_SECONDS = 1200
"""A question that takes longer has failed."""
NONE = "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="*", help=f"{', '.join(QUESTIONS)}, or {NONE}; unset, all of them")
    parser.add_argument(
        "--pairs", type=int, default=5, help="of each comparison; five have an interval of 94 %%, six 97 %%"
    )
    parser.add_argument("--toy", action="store_true", help="sizes of seconds, whose figures mean nothing")
    parser.add_argument("--chats", type=Path, help="JSON lines of your own chats for sft, in place of made ones")
    parser.add_argument("--json", type=Path, help="where figures are kept: docs/performance.json")
    parser.add_argument("--page", type=Path, nargs="?", const=PAGE, help="write the page: docs/performance.md")
    parser.add_argument("--answer", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    # Otherwise the trainings that a question has started would go on without it.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    if given.answer:
        return answer(given)
    if unknown := set(given.question) - {*QUESTIONS, NONE}:
        parser.error(f"no question is called {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    if given.toy:
        # Figures that mean nothing stay out of the docs.
        aside = Path(tempfile.gettempdir(), "titanflow-performance-toy.json")
        given.json = given.json or aside
        given.page = given.json.with_suffix(".md") if given.page == PAGE else given.page
    given.json = given.json or RESULTS
    asked = [name for name in QUESTIONS if name in given.question or not given.question]
    results = json.loads(given.json.read_text()) if given.json.is_file() else {"questions": {}}
    failed = ask(asked, given, results) if asked else []
    if given.page:
        given.page.write_text(page(results), encoding="utf-8")
        print(f"written: {given.page}")
    return 1 if failed else 0


def ask(asked: list[str], given: argparse.Namespace, results: dict[str, Any]) -> list[str]:
    """Puts the questions one after another, keeps each answer at once, and says what came of them."""
    began = time.monotonic()
    print("the machine's limits …", flush=True)
    limits, here = measured_limits(given.toy), machine()
    for number, name in enumerate(asked, 1):
        print(f"[{time.monotonic() - began:5.0f} s] {number}/{len(asked)} {name} …", flush=True)
        started = time.monotonic()
        found = put(name, given, limits)
        found |= {"seconds": round(time.monotonic() - started), "limits": limits, "machine": here, "toy": given.toy}
        found |= {"date": time.strftime("%Y-%m-%d %H:%M"), "command": command_of(name, given)}
        results["questions"][name] = found
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return tell(asked, results, time.monotonic() - began)


def measured_limits(toy: bool) -> dict[str, float]:
    """What the machine gives at most, found by a process of its own."""
    command = [*python(HERE / "frame" / "limits.py"), *(["--toy"] if toy else [])]
    told = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return dict(json.loads(told.stdout))


def put(name: str, given: argparse.Namespace, limits: dict[str, float]) -> dict[str, Any]:
    """One question in a process of its own; its figures, or the error."""
    with tempfile.TemporaryDirectory(prefix=f"titanflow-bench-{name}-") as folder:
        out = Path(folder, "answer.json")
        Path(folder, "limits.json").write_text(json.dumps(limits))
        options = ["--pairs", given.pairs, *(["--toy"] if given.toy else [])]
        options += ["--chats", given.chats.absolute()] if given.chats else []
        command = python(HERE / "bench.py", *options, "--answer", name, folder)
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        with ended_with(process):
            try:
                _, said = process.communicate(timeout=LIMIT_SECONDS)
                error = said[-3000:] if process.returncode else ""
            except subprocess.TimeoutExpired:
                error = f"it took longer than {LIMIT_SECONDS} s"
        if error:
            print(f"    failed: {error}", flush=True)
        # What was found before it failed counts.
        figures = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
        return {"figures": figures, "error": error, "about": about(name)}


def about(name: str) -> str:
    """What a question says of itself."""
    return importlib.import_module(f"questions.{name}").__doc__ or ""


def answer(given: argparse.Namespace) -> int:
    """The question's own process: measures, and adds a line of JSON a figure."""
    name, folder = given.answer[0], Path(given.answer[1])
    if given.toy:
        # Threads of a busy machine wait for each other.
        os.environ["OMP_NUM_THREADS"] = "1"
    files = {"chats": given.chats} if given.chats else {}
    bench = Bench(folder, given.pairs, given.toy, json.loads((folder / "limits.json").read_text()), files)
    importlib.import_module(f"questions.{name}").measure(bench)
    return 0


def command_of(name: str, given: argparse.Namespace) -> str:
    """What measures this question again."""
    options = f" --pairs {given.pairs}" + (" --toy" if given.toy else "")
    return f"python benchmarks/bench.py {name}{options}" + (f" --chats {given.chats}" if given.chats else "")


def tell(asked: list[str], results: dict[str, Any], seconds: float) -> list[str]:
    """A table of all figures, and which verdicts were missed; returns the questions that failed."""
    figures: list[tuple[str, Figure]] = [
        (name, from_json(one)) for name in asked for one in results["questions"][name]["figures"]
    ]
    table = Table(box=SIMPLE)
    for column in ("question", *TOLD):
        table.add_column(column)
    for name, figure in figures:
        cells = dict(zip(COLUMNS, row(figure), strict=True))
        table.add_row(name, *(cells[column] for column in TOLD))
    Console().print(table)
    by_verdict = {
        verdict: [f"{name}: {figure.what}" for name, figure in figures if figure.verdict == verdict]
        for verdict in ("met", "missed", "not run")
    }
    failed = [name for name in asked if results["questions"][name]["error"]]
    print(f"\n{seconds / 60:.0f} min; " + ", ".join(f"{len(found)} {verdict}" for verdict, found in by_verdict.items()))
    for verdict in ("missed", "not run"):
        for one in by_verdict[verdict]:
            print(f"{verdict}: {one}")
    for name in failed:
        print(f"failed: {name}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
