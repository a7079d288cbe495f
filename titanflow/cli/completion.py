"""What a shell completes behind ``titanflow``: names of experiments, runs, modules and keys.

A name that can't be found out completes to nothing, and the shell offers files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from titanflow.common.errors import TitanflowError

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment


class Completed(TyperCommand):
    """A command whose arguments are known when the value of an option behind them is completed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # The parser gives up at an option without its value, and forgets the arguments before it.
        if ctx.resilient_parsing and args and args[-1].startswith("-"):
            args = args[:-1]
        return super().parse_args(ctx, args)


def experiment_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The experiments of the current folder, of the given configs and of titanflow."""
    from titanflow.config.files.tree import ConfigTree

    try:
        return _beginning(incomplete, ConfigTree.locate(ctx.params.get("configs")).experiment_names())
    except (TitanflowError, OSError):
        return []


def run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runs of the experiment that are in its workspace."""
    from titanflow.report.contents import PLAN_FILE
    from titanflow.runs.manifest import MANIFEST_FILE

    experiment = _experiment(ctx)
    if experiment is None:
        return []
    workspace = ctx.params.get("workspace") or experiment.workspace
    files = [path for name in (PLAN_FILE, MANIFEST_FILE) for path in workspace.glob(f"{experiment.exp_name}/*/{name}")]
    return _beginning(incomplete, sorted({path.parent.name for path in files}))


def module_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The experiment's modules."""
    experiment = _experiment(ctx)
    return [] if experiment is None else _beginning(incomplete, experiment.modules)


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """The experiment's keys with an equals sign behind each, for ``--set``."""
    from titanflow.cli.values import resolved_values

    experiment = _experiment(ctx)
    return [] if experiment is None else _beginning(incomplete, (f"{key}=" for key in resolved_values(experiment)))


def stage_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The experiment's stages."""
    from titanflow.runs.contract import PREPARE

    experiment = _experiment(ctx)
    return _beginning(incomplete, [PREPARE, *(experiment.modules if experiment is not None else ())])


def _experiment(ctx: typer.Context) -> Experiment | None:
    from titanflow.config.experiment import load_experiment

    named: Any = ctx.params.get("experiment") or "stdlib"
    try:
        return load_experiment(named, ctx.params.get("configs"), starts=False)
    except (TitanflowError, OSError):
        return None


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
