"""Each model family from scratch on the same text, tokens and order: loss curves and final bits per byte.

``python benchmarks/convergence.py [--size 10m] [--out docs/convergence.svg] [--set KEY=VALUE …]`` runs the experiment
``families`` once a family (a run that is finished is taken as it is), prints a table, and draws the curves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from titan.models.registry import train_spec
from titan.weights.stage_model import stage_model
from titanflow.runs.results import EvaluateResult, TrainResult, read_result
from titanflow.runs.training import read_training

FAMILIES = {"qwen2": "#848d97", "mod": "#3b82f6", "dtf": "#f97316", "tdtf": "#10b981"}
"""Each family and the colour of its curve; the first is the dense one."""
GREY = "#848d97"
TASK, METRIC = "stdlib_bits_per_byte", "bits_per_byte"


def run(family: str, size: str, settings: list[str], name: str = "") -> Path:
    """Runs one family to its end; the run's folder, called ``name`` or after family and size."""
    name = name or f"{family}_{size}"
    command = [sys.executable, "-m", "titanflow.cli.main", "run", "families", "--run", name]
    for setting in (f"pretrain.model={family}_{size}.yaml", *settings):
        command += ["--set", setting]
    subprocess.run(command, check=True)
    return Path("runs/families") / name


def figures(folder: Path) -> dict[str, Any]:
    """What the table shows of a run."""
    trained, evaluated = read_result(folder / "pretrain"), read_result(folder / "evaluate")
    assert isinstance(trained, TrainResult)
    assert isinstance(evaluated, EvaluateResult)
    model = stage_model(read_training(folder / "pretrain"))
    import torch

    with torch.device("meta"):
        built = train_spec(model.name).model_cls(model.args)
    parameters, flops = model.args.get_nparams_and_flops(built, trained.seq_len)
    return {
        "parameters": parameters,
        "flops": flops,
        "loss": trained.loss,
        "validation": trained.validation_loss,
        "bits": evaluated.scores["base"][TASK][METRIC],
        "tokens": trained.tokens,
        "xz": evaluated.reference.get("xz_bits_per_byte"),
    }


def validation(folder: Path) -> tuple[list[float], list[float]]:
    """Tokens and validation losses of a run."""
    lines = [json.loads(line) for line in (folder / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    tokens = {line["step"]: line["tokens"] for line in lines if "tokens" in line}
    found = [(tokens[line["step"]], line["validation_loss"]) for line in lines if "validation_loss" in line]
    return [one for one, _ in found], [one for _, one in found]


def draw(folders: dict[str, Path], flops: dict[str, int], out: Path) -> None:
    """Validation loss over tokens and over operations, side by side, for a light and a dark page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 11, "text.color": GREY, "svg.hashsalt": "0"}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        by_tokens, by_flops = figure.subplots(1, 2, sharey=True)
        for family, folder in folders.items():
            tokens, losses = validation(folder)
            style = {"color": FAMILIES[family], "marker": "o", "ms": 3, "linewidth": 1.5, "label": family}
            by_tokens.plot([one / 1e6 for one in tokens], losses, **style)
            by_flops.plot([one * flops[family] / 1e12 for one in tokens], losses, **style)
        by_tokens.set(xlabel="million tokens", ylabel="held-out loss, nats per token")
        by_flops.set(xlabel="TFLOP of training")
        by_tokens.legend(frameon=False, labelcolor=GREY)
        for axes in (by_tokens, by_flops):
            axes.tick_params(colors=GREY)
            axes.xaxis.label.set_color(GREY)
            axes.yaxis.label.set_color(GREY)
            axes.grid(color=GREY, alpha=0.25)
            for spine in axes.spines.values():
                spine.set_color(GREY)
        figure.savefig(out, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10m", help="10m, or 50m where there is a GPU")
    parser.add_argument("--out", type=Path, default=Path("docs/convergence.svg"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    folders = {family: run(family, args.size, args.set) for family in FAMILIES}
    found = {family: figures(folder) for family, folder in folders.items()}
    dense = next(iter(found.values()))
    print("| family | parameters | MFLOP a token | of dense | train loss | held-out loss | bits per byte |")
    print("|---|---|---|---|---|---|---|")
    for family, one in found.items():
        print(
            f"| {family} | {one['parameters'] / 1e6:.1f} M | {one['flops'] / 1e6:.1f} | "
            f"{one['flops'] / dense['flops']:.2f} | {one['loss']:.3f} | {one['validation']:.3f} | {one['bits']:.3f} |"
        )
    print(f"\n{dense['tokens']:,} tokens each; xz -9e: {dense['xz']}")
    draw(folders, {family: one["flops"] for family, one in found.items()}, args.out)


if __name__ == "__main__":
    main()
