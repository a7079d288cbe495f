"""A fine-tuning, its export and its scores: by the GPU on the export, and by the CPU on the model that was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from packed import SMALL, base_of, fine_tuned
from place import Place, Row, judged
from stages import StagePlan, finish, planned, prepare

from titanflow.runs.contract import RESULT_FILE

EXPORT, SCORES = ROWS = ["export equals the trained model", "scores equal the native model's"]
DIFFERENCE = 0.02
"""Of two scores: a near tie may fall the other way in another kernel."""
EVALUATION = {
    **{"models": {"sft": "sft"}, "tasks": ["stdlib_kind", "stdlib_bits_per_byte"], "limit": 40},
    **{"wandb": False, "contamination": "skip", "examples": 0},
}


def check(place: Place, seconds: float) -> Iterator[Row]:
    """Runs the four stages one after the other."""
    module = {"config": "evaluate.yaml", "data": "stdlib_evals.yaml"}
    modules = {
        "sft": fine_tuned(place, base_of(place, SMALL), "sdpa", 256, 2, 5 if place.toy else 50, compiles=False),
        "evaluate": {**module, "overrides": EVALUATION},
        "native": {**module, "stage": "evaluate", "overrides": {**EVALUATION, "backend": "native", "device": "cpu"}},
    }
    plan = planned(modules, place.folder / "runs")
    prepare(plan)
    finish(plan.stage("sft"))
    parity = json.loads((plan.stage("sft").run.folder / RESULT_FILE).read_text(encoding="utf-8"))["parity"]
    found = ", ".join(f"{name} {value:.2g}" for name, value in parity.items()) or "none was made"
    yield judged(EXPORT, "the stage's own comparison", found, bool(parity), **parity)
    for name in ("evaluate", "native"):
        finish(plan.stage(name))
    here, native = (scores(plan.stage(name)) for name in ("evaluate", "native"))
    worst = max(abs(here[name] - native[name]) for name in native)
    found = f"{len(native)} scores differ by {worst:.1e} at most"
    yield judged(SCORES, f"within {DIFFERENCE}", found, here.keys() == native.keys() and worst <= DIFFERENCE, **here)


def scores(stage: StagePlan) -> dict[str, float]:
    """The model's scores by task and metric."""
    path: Path = stage.run.folder / RESULT_FILE
    by_task = json.loads(path.read_text(encoding="utf-8"))["scores"]["sft"]
    return {
        f"{task}/{metric}": value
        for task, metrics in by_task.items()
        for metric, value in metrics.items()
        if isinstance(value, float) and "stderr" not in metric
    }
