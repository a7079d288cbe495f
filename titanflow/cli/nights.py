"""``titanflow nights``: what became of an experiment's nights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from titanflow.cli.app import (
    ConfigsOption,
    ExperimentArgument,
    JsonOption,
    SetOption,
    WorkspaceOption,
    out,
    print_json,
    with_options,
)
from titanflow.common.console import uncut

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment

STYLES = {
    "published": "green",
    "proposed": "cyan",
    "held back": "yellow",
    "skipped": "dim",
    "failed": "red",
    "stopped": "red",
}


def nights(
    experiment: ExperimentArgument = "stdlib_nightly",
    configs: ConfigsOption = None,
    settings: SetOption = None,
    workspace: WorkspaceOption = None,
    notify: Annotated[
        bool,
        typer.Option("--notify", help="Make the notices that `notify` asks for, on the server of PREFECT_API_URL."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the nights: what was published, proposed, held back, failed or skipped, and what retention would remove."""
    from titanflow.config.experiment import load_experiment
    from titanflow.config.overrides import parse_settings
    from titanflow.nightly.retention import to_remove
    from titanflow.nightly.table import COLUMNS, read_nights

    config = load_experiment(experiment, configs, parse_settings(with_options(settings, workspace=workspace)))
    if notify:
        _make_notices(config)
        return
    runs = config.workspace.resolve() / config.exp_name
    rows, old = read_nights(runs), to_remove(runs, config.spec.nightly.keep)
    if as_json:
        print_json({"experiment": config.exp_name, "nights": [row.as_json() for row in rows], "old": old.removed})
        return
    if not rows:
        out.print(f"no nights in {runs}")
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        night, state, *others = row.cells()
        table.add_row(night, Text(state, style=STYLES.get(state, "")), *map(Text, others))
    out.print(uncut(table))
    if old.removed:
        out.print(f"the next night removes {', '.join(old.removed)}")


def _make_notices(config: Experiment) -> None:
    from flows.server.prefect_settings import check_prefect_settings

    check_prefect_settings()
    from deployments.notifications import make_notices

    for name in make_notices(config):
        out.print(name)
