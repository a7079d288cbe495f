"""Evaluating against `lm_eval`'s own command line: the same exported folders, the four tasks of the default
experiment, threads, batch size and float32, start-up included. Models of the default experiment's size, untrained, so
that their answers run to the tasks' limits. One model is one command of either side; two, a base and its fine-tuned
model, are one run here and `lm_eval` twice. Ours is started by `torchrun`, as a stage is.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from frame.bench import Bench
from frame.figures import Figure, Wanted
from frame.inputs import write_corpus, write_tokenizer
from frame.pairs import in_pairs
from frame.processes import ROOT, Ran, python, run
from frame.stage import finished_training, llama

from titan.evaluate.scores import metric_scores
from titan.evaluate.tasks import render_tasks
from titanflow.config.keys.launcher import Launcher
from titanflow.data.stdlib.evals import write_items
from titanflow.evals.asked_tasks import asked_by
from titanflow.planning.launch import command
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import EvaluateResult, read_result

EVALS = ROOT / "configs" / "evals"
TASKS = ("stdlib_bits_per_byte", "stdlib_kind", "stdlib_module", "stdlib_summary")
TOY_TASKS = TASKS[1:2]
BATCH_SIZE = 16
Scores = dict[str, dict[str, float]]


def measure(bench: Bench) -> None:
    tasks = TOY_TASKS if bench.toy else TASKS
    tokenizer = write_tokenizer(bench.folder / "tokenizer", vocab=2048)
    text = write_corpus(bench.folder / "text.jsonl", 0.5)
    module = llama(
        "tiny" if bench.toy else "default", text, tokenizer, training={"seq_len": 128}, model={"vocab_size": 2048}
    )
    models = []
    for name in ("base", "tuned"):
        seeded = {**module, "overrides": {**module["overrides"], "debug": {"seed": len(models)}}}
        stage, _ = finished_training(seeded, bench.folder / "ours", name)
        models.append(stage / "export")
    items = bench.folder / "items"
    items.mkdir()
    (items / "dataset.json").write_text(json.dumps(write_items(items)))
    asked = asked_by({"tasks": list(tasks), "include_path": EVALS})
    rendered = render_tasks(asked, items, bench.folder / "tasks")
    threads = len(os.sched_getaffinity(0))
    places = (bench.folder / f"evaluation{number}" for number in range(1_000_000))
    sides: list[Callable[[], tuple[Ran, list[Scores]]]] = [
        lambda: ours(models[:1], items, next(places), tasks, threads),
        lambda: ours(models, items, next(places), tasks, threads),
        lambda: lm_evals(models[0], rendered, next(places), tasks, threads),
        lambda: lm_evals(models[1], rendered, next(places), tasks, threads),
    ]
    one, two, base, tuned = in_pairs(sides, bench.pairs, warm_up=False)
    apart = max(
        abs(own[task][metric] - value)
        for own, other in zip(two[0][1], (base[0][1][0], tuned[0][1][0]), strict=True)
        for task in tasks
        for metric, value in other[task].items()
    )
    for what, own, others, wanted in (
        ("one model", one, [base], 2.0),
        ("two models", two, [base, tuned], 3.0),
    ):
        bench.found(
            Figure(
                what=f"{what}, {len(tasks)} tasks",
                unit="s",
                ours=[ran.wall for ran, _ in own],
                theirs=[sum(ran.wall for ran, _ in runs) for runs in zip(*others, strict=True)],
                peer="lm_eval",
                higher_is_better=False,
                wanted=Wanted("ratio", ">=", wanted),
                limit=bench.least("import_torch"),
                memory=(
                    max(ran.megabytes for ran, _ in own),
                    max(ran.megabytes for runs in others for ran, _ in runs),
                ),
                note=f"the scores differ by {apart:.0e} at most",
            )
        )


def ours(
    models: list[Path], items: Path, folder: Path, tasks: tuple[str, ...], threads: int
) -> tuple[Ran, list[Scores]]:
    """This project's stage on some models: its process, and each model's scores."""
    stage = StageRun(
        stage="evaluate",
        experiment="benchmark",
        run="main",
        folder=folder / "evaluate",
        config={
            "tasks": list(tasks),
            "include_path": str(EVALS),
            "models": {f"model{number}": str(model) for number, model in enumerate(models)},
            "batch_size": BATCH_SIZE,
            "wandb": False,
            "launcher": dataclasses.asdict(Launcher(nproc_per_node=1)),
        },
        data=PreparedData(train=items),
    )
    stage.write()
    ran = run(command(stage), {"OMP_NUM_THREADS": str(threads)})
    result = read_result(stage.folder)
    assert isinstance(result, EvaluateResult)
    return ran, list(result.scores.values())


def lm_evals(model: Path, tasks: Path, folder: Path, names: tuple[str, ...], threads: int) -> tuple[Ran, list[Scores]]:
    """lm-eval's command line on one model."""
    options = {
        "--model": "hf",
        "--model_args": f"pretrained={model},dtype=float32",
        "--tasks": ",".join(names),
        "--include_path": tasks,
        "--batch_size": BATCH_SIZE,
        "--device": "cpu",
        "--output_path": folder,
    }
    flat = [text for pair in options.items() for text in pair]
    ran = run(
        python("-m", "lm_eval", "run", *flat, "--apply_chat_template", "--log_samples"),
        {"OMP_NUM_THREADS": str(threads)},
    )
    results = json.loads(next(folder.rglob("results_*.json")).read_text())["results"]
    return ran, [{task: metric_scores(results[task]) for task in names}]
