"""The two causal routers of mod and dtf side by side: how well each meets the choice, and the loss of the model in use.

``python benchmarks/causal_routers.py [--size 10m] [--seeds 0 1 2] [--set KEY=VALUE …]`` runs the experiment
``families`` once a family, router and seed (a run that is finished is taken as it is), and prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

from convergence import run

from titanflow.runs.results import TrainResult, read_result

FAMILIES = ("mod", "dtf")
ROUTERS = ("own", "previous")
RECORDS = 10
"""So many of the last logged steps a statistic is the mean of."""
EVALUATED = "evaluate.limit=8"
"""The held-out loss is that of the training's last validation: of the evaluation no more than has to be."""


def train(family: str, router: str, seed: int, size: str, settings: list[str]) -> Path:
    """Runs one model to its end; the folder of its training."""
    own = [f"pretrain.model.causal_router={router}", f"pretrain.debug.seed={seed}", EVALUATED]
    return run(family, size, [*own, *settings], f"{family}_{size}_{router}_{seed}") / "pretrain"


def figures(folder: Path) -> dict[str, float]:
    """What the table shows of a run."""
    trained = read_result(folder)
    assert isinstance(trained, TrainResult)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line["router"] for line in lines if "router" in line][-RECORDS:]
    names = ("predictor_accuracy", "predicted_fraction", "selected_fraction")
    assert trained.validation_loss is not None
    return {"validation": trained.validation_loss} | {name: mean(one[name] for one in last) for name in names}


def row(family: str, router: str, runs: list[dict[str, float]]) -> str:
    """One line of the table: of each figure the mean of the seeds, and of the losses each seed's."""
    means = {name: mean(one[name] for one in runs) for name in runs[0]}
    share = means["selected_fraction"]
    losses = ", ".join(f"{one['validation']:.3f}" for one in runs)
    return (
        f"| {family} | {router} | {means['predictor_accuracy']:.3f} | {max(share, 1 - share):.3f} | "
        f"{means['predicted_fraction']:.3f} of {share:.3f} | {means['validation']:.3f} | {losses} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10m", help="10m, or 50m where there is a GPU")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in args.seeds:
        for family in FAMILIES:
            for router in ROUTERS:
                folder = train(family, router, seed, args.size, args.set)
                found.setdefault((family, router), []).append(figures(folder))
    print("| family | causal_router | accuracy | of one answer always | computed | held-out loss | of each seed |")
    print("|---|---|---|---|---|---|---|")
    for (family, router), runs in found.items():
        print(row(family, router, runs))


if __name__ == "__main__":
    main()
