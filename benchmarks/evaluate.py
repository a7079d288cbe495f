"""Wall time of an evaluation against lm-eval's own command line: same folder, tasks, threads and batch size.

``python benchmarks/evaluate.py [--model FOLDER …] [--pairs 3] [--threads 2] [--ranks 1]`` prints a line a pair: the
seconds of both, start-up included, and their ratio; the same for the processor's seconds, which other work on the
machine changes less; and the largest difference between the scores. Several folders are one run of this project, as
base and fine-tuned model are, and one run each of the command line. Without a folder an untrained model of the default
experiment's size is exported. The order within a pair alternates.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from titan.evaluate.scores import metric_scores
from titan.evaluate.tasks import render_tasks
from titanflow.config.keys.launcher import Launcher
from titanflow.evals.asked_tasks import asked_by
from titanflow.planning.launch import command
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import read_result

TARGET = 2.0
ROOT = Path(__file__).parent.parent
TASKS = ("stdlib_bits_per_byte", "stdlib_kind", "stdlib_module", "stdlib_summary")
SIZES = {"dim": 128, "n_layers": 4, "n_heads": 4, "vocab_size": 2048, "multiple_of": 64, "rope_theta": 10_000.0}
POSITIONS = 128
BATCH_SIZE = 16


def untrained_export(folder: Path) -> Path:
    """A model of the default experiment's architecture and tokenizer; its answers run to the tasks' limits."""
    import torch
    from torch.distributed import checkpoint as dcp

    from titan.export.export import export_model
    from titan.models.registry import train_spec
    from titan.weights.stage_model import TrainedModel, Weights
    from titanflow.config.files.chat_template import template_text
    from titanflow.data.stdlib.text import documents
    from titanflow.data.tokenizer.tokenizer import train_tokenizer

    train_tokenizer((text for text, _ in documents("train")), SIZES["vocab_size"], folder / "tokenizer")
    spec = train_spec("llama3")
    args = dataclasses.replace(spec.model_args["debugmodel"], max_seq_len=POSITIONS, **SIZES)
    torch.manual_seed(0)
    model = spec.model_cls(args)
    with torch.no_grad():
        model.init_weights()
    dcp.save(model.state_dict(), checkpoint_id=folder / "step-1", no_dist=True)
    template = template_text("chatml")
    weights = Weights(folder / "step-1")
    model = TrainedModel("llama3", args, POSITIONS, folder / "tokenizer", weights=weights, chat_template=template)
    return export_model(model, folder / "export").folder


def environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


class Seconds(NamedTuple):
    """What a process and its children took: by the clock, and of the processor."""

    wall: float
    processor: float


Scores = dict[str, dict[str, dict[str, float]]]


def timed(arguments: list[str], threads: int) -> Seconds:
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(arguments, env=environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(time.perf_counter() - started, spent)


def ours(models: list[Path], items: Path, folder: Path, ranks: int, threads: int) -> tuple[Seconds, Scores]:
    run = StageRun(
        stage="evaluate",
        experiment="benchmark",
        run="main",
        folder=folder,
        config={
            "tasks": list(TASKS),
            "include_path": str(ROOT / "configs" / "evals"),
            "models": {f"model{number}": str(model) for number, model in enumerate(models)},
            "batch_size": BATCH_SIZE,
            "wandb": False,
            "launcher": dataclasses.asdict(Launcher(nproc_per_node=ranks)),
        },
        data=PreparedData(train=items),
    )
    run.write()
    return timed(command(run), max(1, threads // ranks)), read_result(folder).scores  # type: ignore[union-attr]


def command_line(models: list[Path], tasks: Path, folder: Path, threads: int) -> tuple[Seconds, Scores]:
    runs = [one_command(model, tasks, folder / str(number), threads) for number, model in enumerate(models)]
    total = Seconds(*(sum(figures) for figures in zip(*(seconds for seconds, _ in runs), strict=True)))
    return total, {f"model{number}": scores for number, (_, scores) in enumerate(runs)}


def one_command(model: Path, tasks: Path, folder: Path, threads: int) -> tuple[Seconds, dict[str, dict[str, float]]]:
    arguments = {
        "--model": "hf",
        "--model_args": f"pretrained={model},dtype=float32",
        "--tasks": ",".join(TASKS),
        "--include_path": str(tasks),
        "--batch_size": str(BATCH_SIZE),
        "--device": "cpu",
        "--output_path": str(folder),
    }
    flat = [text for pair in arguments.items() for text in pair]
    seconds = timed([sys.executable, "-m", "lm_eval", "run", *flat, "--apply_chat_template", "--log_samples"], threads)
    results = json.loads(next(folder.rglob("results_*.json")).read_text())["results"]
    return seconds, {task: metric_scores(results[task]) for task in TASKS}


def largest_difference(first: Scores, second: Scores) -> float:
    return max(
        abs(first[model][task][metric] - value)
        for model in second
        for task in TASKS
        for metric, value in second[model][task].items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, nargs="+", help="folders that transformers loads, with a chat template")
    parser.add_argument("--items", type=Path, help="prepared items of configs/evals (made unless given)")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ranks", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = given.model or [untrained_export(folder / "untrained")]
        items = given.items or prepared_items(folder / "items")
        asked = asked_by({"tasks": list(TASKS), "include_path": ROOT / "configs" / "evals"})
        tasks = render_tasks(asked, items, folder / "tasks")
        print(f"{'':6}{'lm_eval':>10}{'titanflow':>11}{'ratio':>7}{'processor':>22}{'ratio':>7}{'scores differ':>15}")
        wall, processor = [], []
        for pair in range(given.pairs):
            sides: list[Callable[[], tuple[Seconds, Scores]]] = [
                lambda at=folder / f"theirs-{pair}": command_line(models, tasks, at, given.threads),
                lambda at=folder / f"ours-{pair}": ours(models, items, at, given.ranks, given.threads),
            ]
            done = {side: sides[side]() for side in ((1, 0) if pair % 2 else (0, 1))}
            (other, others), (taken, scores) = done[0], done[1]
            wall.append(other.wall / taken.wall)
            processor.append(other.processor / taken.processor)
            print(
                f"{pair + 1:<6}{other.wall:>9.1f}s{taken.wall:>10.1f}s{wall[-1]:>7.2f}"
                f"{other.processor:>11.1f}s{taken.processor:>9.1f}s{processor[-1]:>7.2f}"
                f"{largest_difference(scores, others):>15.1e}",
                flush=True,
            )
        print(f"{'median':6}{median(wall):>28.2f}{median(processor):>28.2f}   expected: at least {TARGET:g}")


def prepared_items(folder: Path) -> Path:
    from titanflow.data.stdlib.evals import write_items

    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(write_items(folder)))
    return folder


if __name__ == "__main__":
    main()
