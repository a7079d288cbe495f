"""``titanflow prove-losses`` and ``titanflow benchmark``: comparisons of finished trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from titanflow.cli.app import JsonOption, out, print_json
from titanflow.cli.models import start_module


def prove_losses(
    stage: Annotated[Path, typer.Argument(help="A finished training stage's folder.", metavar="STAGE")],
    as_json: JsonOption = False,
) -> None:
    """Train transformers' model as a stage was trained, and compare the losses of each step."""
    start_module("titan.train.prove_losses", *(["--json"] if as_json else []), "--", str(stage))


def benchmark(
    stages: Annotated[list[Path], typer.Argument(help="Folders of finished training stages.", metavar="STAGE…")],
    as_json: JsonOption = False,
) -> None:
    """Print the speed, memory and loss of trainings, one row of a markdown table for each."""
    from titanflow.report.benchmark_row import benchmark_row, markdown_table

    rows = [benchmark_row(stage) for stage in stages]
    if as_json:
        print_json(rows)
    else:
        out.print(markdown_table(rows))
