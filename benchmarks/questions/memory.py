"""The memory at its peak, and what it grows with: the anonymous memory of all processes together, without the pages
of mapped files, which the system takes back when it needs them.

Preparing is held to 40 MB more for ten times the text. An export and a mean of two models work on mapped files: they
may grow by the largest file of weights twice, which here is the whole model, and by no more. An evaluation holds one
model at a time, so that three models may take 60 MB more than one, and ten times the items 60 MB more than a tenth of
them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, Wanted
from frame.inputs import write_corpus, write_tokenizer
from frame.peers import PEERS
from frame.processes import ROOT, python, run
from frame.stage import finished_training, llama

from titanflow.config.keys.launcher import Launcher
from titanflow.data.stdlib.evals import write_items
from titanflow.planning.launch import command
from titanflow.runs.contract import PreparedData, StageRun

PREPARING, FILES, EVALUATING = 40.0, 2.0, 60.0
"""MB for ten times the text; sizes of the model's file; MB for more models or items."""


def measure(bench: Bench) -> None:
    small, large = ("tiny", "12M") if bench.toy else ("12M", "50M")
    tokenizer = write_tokenizer(bench.folder / "tokenizer", vocab=8192)
    preparing(bench, tokenizer)
    text = write_corpus(bench.folder / "text.jsonl", 0.5)
    stages = {}
    for size in (small, large):
        module = llama(size, text, tokenizer, checkpoint={"interval": 1, "keep_latest_k": 2})
        stages[size], _ = finished_training(module, bench.folder / "ours", size.lower(), 2)
    of_weights(bench, "export", {size: exporting(stage, bench) for size, stage in stages.items()}, stages)
    of_weights(bench, "mean of two", {size: averaging(stage, bench) for size, stage in stages.items()}, stages)
    evaluating(bench, stages[small] / "export")


def preparing(bench: Bench, tokenizer: Path) -> None:
    """Text, and ten times as much."""
    megabytes = (0.5, 5) if bench.toy else (8, 80)
    peaks = []
    for size in megabytes:
        corpus = write_corpus(bench.folder / f"corpus{size:g}.jsonl", size)
        folder = bench.folder / f"prepared{size:g}"
        folder.mkdir()
        peaks.append(run(python(PEERS / "prepare_text.py", corpus, tokenizer, folder, 1)).megabytes)
    grown(bench, f"preparing {megabytes[1]:g} MB of text over {megabytes[0]:g} MB", peaks, PREPARING)


def exporting(stage: Path, bench: Bench) -> float:
    """MB of an export."""
    return run(python("-m", "titan.export.export", stage, bench.folder / f"export-{stage.parents[1].name}")).megabytes


def averaging(stage: Path, bench: Bench) -> float:
    """MB of the mean of a stage's last two checkpoints."""
    return run(python(PEERS / "average.py", stage, bench.folder / f"mean-{stage.parents[1].name}")).megabytes


def of_weights(bench: Bench, what: str, peaks: dict[str, float], stages: dict[str, Path]) -> None:
    """By how many sizes of the larger model's weights the peak grew."""
    sizes = [(stage / "export" / "model.safetensors").stat().st_size / 1e6 for stage in stages.values()]
    small, large = peaks.values()
    bench.found(
        Figure(
            what=f"{what}, {sizes[1]:.0f} MB of weights over {sizes[0]:.0f} MB",
            unit="times the weights",
            ours=[(large - small) / (sizes[1] - sizes[0])],
            higher_is_better=False,
            wanted=Wanted("value", "<=", FILES),
            memory=(large,),
        )
    )


def evaluating(bench: Bench, model: Path) -> None:
    """One model and three; a tenth of the items and all of them."""
    items = bench.folder / "items"
    items.mkdir()
    (items / "dataset.json").write_text(json.dumps(write_items(items)))
    one, few, three = (
        evaluation(models, limit, model, items, bench.folder / f"evaluation{number}")
        for number, (models, limit) in enumerate(((1, None), (1, 0.1), (3, None)))
    )
    grown(bench, "evaluating three models over one", [one, three], EVALUATING)
    grown(bench, "evaluating all items over a tenth", [few, one], EVALUATING)


def evaluation(models: int, limit: float | None, model: Path, items: Path, folder: Path) -> float:
    """MB of an evaluation of the same model so many times."""
    config: dict[str, Any] = {
        "tasks": ["stdlib_kind"],
        "include_path": str(ROOT / "configs" / "evals"),
        "models": {f"model{number}": str(model) for number in range(models)},
        "limit": limit,
        "wandb": False,
        "launcher": dataclasses.asdict(Launcher(nproc_per_node=1)),
    }
    stage = StageRun(
        stage="evaluate",
        experiment="memory",
        run="main",
        folder=folder / "evaluate",
        config=config,
        data=PreparedData(train=items),
    )
    stage.write()
    return run(command(stage)).megabytes


def grown(bench: Bench, what: str, peaks: list[float], bound: float) -> None:
    """By how many MB the second peak is above the first."""
    bench.found(
        Figure(
            what=what,
            unit="MB more",
            ours=[max(0.0, peaks[1] - peaks[0])],
            higher_is_better=False,
            wanted=Wanted("value", "<=", bound),
            memory=(peaks[1],),
        )
    )
