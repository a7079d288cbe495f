"""What the subcommands share: options, consoles, and how an error ends them."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from titanflow.cli.completion import experiment_names, keys, run_names
from titanflow.common.console import Output
from titanflow.common.errors import TitanflowError, refused_places
from titanflow.config.keys.on_stale import OnStale
from titanflow.files.caches import move_unwritable

out, err = Output(), Output(stderr=True)
INTERRUPTED = 130

ExperimentArgument = Annotated[
    str,
    typer.Argument(
        help="An experiment's name, its file, or the experiment itself as JSON.",
        metavar="EXPERIMENT",
        autocompletion=experiment_names,
    ),
]
ConfigsOption = Annotated[
    Path | None,
    typer.Option("--configs", help="A folder of configs, or of what differs from the shipped ones.", metavar="DIR"),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="The run's name: its folder, and the tag it publishes.",
        metavar="NAME",
        autocompletion=run_names,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a value, as pretrain.training.steps=100; may be given several times.",
        metavar="KEY=VALUE",
        autocompletion=keys,
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="The folder of runs and prepared data, as --set workspace=DIR.", metavar="DIR"),
]
OnStaleOption = Annotated[
    OnStale | None,
    typer.Option("--on-stale", help="For a stage made from other inputs: refuse it, make it again, or use its output."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="A stage to make, with those that it is made from; may be given several times."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Command = TypeVar("Command", bound=Callable[..., Any])


def reports_errors(function: Command, lasting: Collection[str] = (), after_interrupt: str = "") -> Command:
    """Prints a TitanflowError as one message and exits with its status; sees to it that caches can be written.

    ``lasting`` names the variables of folders that the command can't have among the temporary ones; ``after_interrupt``
    is what to say of a ^C, beside that it was one.
    """

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            if moved := move_unwritable(lasting):
                err.print(Text.assemble(("warning: ", "yellow"), moved))
            with refused_places():
                return function(*arguments, **options)
        except TitanflowError as error:
            err.print(Text.assemble(("error: ", "bold red"), str(error)))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("; ".join(filter(None, ("interrupted", after_interrupt))))
            raise typer.Exit(INTERRUPTED) from None

    return wrapper  # type: ignore[return-value]


def with_options(settings: list[str] | None, **options: str | Path | list[str] | None) -> list[str]:
    """The settings and, as such, the options that were given; quoted, since a folder's name may look like YAML."""
    texts = {key: value if isinstance(value, list) else str(value) for key, value in options.items() if value}
    given = [f"{key}={json.dumps(value)}" for key, value in texts.items()]
    return [*(settings or []), *given]


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def show_warnings(loaded: Any) -> None:
    for line in loaded.ignored:
        err.print(Text.assemble(("ignored: ", "yellow"), line))
    for line in loaded.warnings:
        err.print(Text.assemble(("warning: ", "yellow"), line))
