"""Tokens that Muon and AdamW need for the same loss, on the default experiment's pretraining.

``python benchmarks/optimizers.py [--steps 400] [--seeds 3] [--out FILE.json]`` trains with each learning rate on the
first seed, and with each optimizer's best on the other seeds. A run that is finished is taken as it is. It prints two
tables: the held-out loss by learning rate; and by seed the final losses, and the share of AdamW's tokens after which
Muon's held-out loss is AdamW's final one. Validations stand twenty times in a run, with a line between two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.metrics import read_metrics

RATES = {"AdamW": (2e-3, 4e-3, 8e-3, 16e-3), "Muon": (4e-3, 8e-3, 16e-3)}
"""The learning rates that each is tried with: the default experiment's is AdamW's second."""
VALIDATIONS = 20
Curve = list[tuple[float, float]]


def validations(name: str, lr: float, seed: int, steps: int, workspace: Path) -> Curve:
    """Trains once; tokens and held-out loss of each validation."""
    run = f"{name.lower()}-{lr:g}-{seed}-{steps}"
    settings = {
        "optimizer.name": name,
        "optimizer.lr": lr,
        "debug.seed": seed,
        "training.steps": steps,
        "validation.freq": max(1, steps // VALIDATIONS),
    }
    command = [sys.executable, "-m", "titanflow.cli.main", "run", "stdlib", "--only", "pretrain", "--run", run]
    for key, value in {"workspace": workspace, **{f"pretrain.{key}": one for key, one in settings.items()}}.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = read_metrics(workspace / "stdlib" / run / "pretrain" / METRICS_FILE)
    tokens = {line["step"]: line["tokens"] for line in lines if "tokens" in line}
    return [(tokens[line["step"]], line["validation_loss"]) for line in lines if "validation_loss" in line]


def tokens_to(loss: float, curve: Curve) -> float | None:
    """Where the curve first comes down to a loss, in tokens; None if it never does."""
    for (before, above), (after, below) in pairwise(curve):
        if below <= loss:
            return before + (after - before) * (above - loss) / (above - below)
    return None


def shown(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="a JSON file of all curves")
    given = parser.parse_args()
    curves: dict[str, dict[int, Curve]] = {}
    print("| optimizer | `lr` | held-out loss |\n| --- | --- | --- |")
    for name, rates in RATES.items():
        tried = {lr: validations(name, lr, 0, given.steps, given.workspace) for lr in rates}
        for lr, curve in tried.items():
            print(f"| {name} | {lr:g} | {curve[-1][1]:.3f} |", flush=True)
        best = min(tried, key=lambda lr: tried[lr][-1][1])
        curves[name] = {0: tried[best]}
        for seed in range(1, given.seeds):
            curves[name][seed] = validations(name, best, seed, given.steps, given.workspace)
    report(curves)
    if given.out:
        given.out.write_text(json.dumps(curves), encoding="utf-8")


def report(curves: Mapping[str, Mapping[int, Curve]]) -> None:
    print("\n| seed | AdamW | Muon | share of the tokens |\n| --- | --- | --- | --- |")
    shares: list[float] = []
    for seed, adamw in curves["AdamW"].items():
        muon = curves["Muon"][seed]
        reached = tokens_to(adamw[-1][1], muon)
        shares += [reached / adamw[-1][0]] if reached else []
        share = f"{shares[-1]:.2f}" if reached else "not reached"
        print(f"| {seed} | {adamw[-1][1]:.3f} | {muon[-1][1]:.3f} | {share} |")
    losses = [shown([curve[-1][1] for curve in one.values()]) for one in curves.values()]
    print(f"| mean | {losses[0]} | {losses[1]} | {shown(shares) if shares else 'not reached'} |")


if __name__ == "__main__":
    main()
