"""How long one waits before something happens: each command of the terminal, and each stage until its own work
begins.

Beside it stands the time of an interpreter that only imports the library that the command can't do without: Python
alone for what needs neither torch nor Prefect, torch for a chat or an export. A plan is held to 0.7 s.
"""

from __future__ import annotations

import time
from pathlib import Path

from frame.bench import Bench
from frame.figures import Figure, Wanted
from frame.inputs import write_corpus, write_tokenizer
from frame.pairs import in_pairs
from frame.processes import run, titanflow
from frame.stage import llama, planned, trained_tokens, training_side
from frame.trainings import started

PLAN_SECONDS = 0.7
COMMANDS = {
    "titanflow --help": (["--help"], "start_python"),
    "titanflow plan stdlib": (["plan", "stdlib"], "start_python"),
    "titanflow config stdlib": (["config", "stdlib"], "start_python"),
    "titanflow export --help": (["export", "--help"], "start_python"),
}


def measure(bench: Bench) -> None:
    workspace = {"TITANFLOW_WORKSPACE": str(bench.folder / "runs")}
    for what, (options, limit) in COMMANDS.items():
        command = titanflow(*options)
        (seconds,) = in_pairs([lambda command=command: run(command, workspace).wall], bench.pairs)
        bench.found(
            Figure(
                what=what,
                unit="s",
                ours=seconds,
                higher_is_better=False,
                wanted=Wanted("value", "<=", PLAN_SECONDS) if "plan" in options else None,
                limit=bench.least(limit),
            )
        )
    tokenizer = write_tokenizer(bench.folder / "tokenizer")
    text = write_corpus(bench.folder / "text.jsonl", 0.2)
    module = llama("tiny", text, tokenizer)
    planned("pretrain", module, bench.folder / "ours", "startup", 1)
    (first_steps,) = in_pairs([lambda: first_step(module, bench.folder / "ours")], 2 if bench.toy else 3)
    bench.found(
        Figure(
            what="a training's first step",
            unit="s",
            ours=first_steps,
            higher_is_better=False,
            limit=bench.least("import_torchtitan"),
        )
    )


def first_step(module: dict[str, object], workspace: Path) -> float:
    """Seconds from the start of a training's process to the record of its first step."""
    side = training_side("pretrain", module, workspace, "startup", trained_tokens)
    side.records.unlink(missing_ok=True)
    began = time.perf_counter()
    with started(side) as training:
        training.until(lambda steps: len(steps) >= 1)
        return time.perf_counter() - began
