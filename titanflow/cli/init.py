"""``titanflow init``: an experiment from a user's own files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from titanflow.cli.app import err, out, show_warnings
from titanflow.cli.run import print_plan
from titanflow.common.errors import ConfigError, Problem

TAKES_MANY = ("--text", "--chats")
"""Options that take all that stands behind them up to the next option, as a shell expands a pattern."""


class ManyFiles(TyperCommand):
    """A command whose options may take several files: ``--text a.txt b.txt``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_one_by_one(args)))


def _one_by_one(args: Sequence[str]) -> Iterator[str]:
    """The arguments with such an option before each of its values."""
    option, is_first = "", False
    for number, argument in enumerate(args):
        if argument == "--":
            yield from args[number:]
            return
        if argument.startswith("-"):
            option, is_first = (argument, True) if argument in TAKES_MANY else ("", False)
        elif option and not is_first:
            yield option
        else:
            is_first = False
        yield argument


def init(
    name: Annotated[str, typer.Argument(help="The experiment's name; its file is NAME.yaml.")],
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Files, folders or patterns to pretrain on.", metavar="FILES…")
    ] = None,
    chats: Annotated[
        list[str] | None, typer.Option("--chats", help="Conversations to fine-tune on.", metavar="FILES…")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="A model to begin with, in place of a new one.", metavar="FOLDER|REPO")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Parameters of a new model, as 10M; unset, as many as the data is for.")
    ] = None,
    hub: Annotated[str | None, typer.Option("--hub", help="Where to publish on the Hub.", metavar="OWNER/NAME")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="What a column is: text=body, prompt=question.", metavar="WHAT=NAME"),
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="What a role is: bot=assistant.", metavar="NAME=ROLE")
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the experiment, and write nothing.")] = False,
) -> None:
    """Look at your own files, and write NAME.yaml, an experiment for them and this machine. Shows its plan."""
    from titanflow.config.reference.editor import editor_comment
    from titanflow.draft.draft import Asked, Draft
    from titanflow.draft.fitting import fitting
    from titanflow.draft.table import files_table
    from titanflow.draft.trial import tried_plan

    path = Path(f"{name}.yaml")
    asked = Asked(name, text or (), chats or (), base, size, hub, _pairs("--column", column), _pairs("--role", role))
    if not only_print and (path.exists() or path.is_symlink()):
        raise _is_there(path)
    draft = Draft.of(asked)
    err.print(files_table(draft))
    experiment = editor_comment(path.parent) + fitting(draft)
    planned = tried_plan(name, experiment)
    if only_print:
        sys.stdout.write(experiment)
    else:
        _write(path, experiment)
    show_warnings(planned.config)
    print_plan(planned, err)
    if not only_print:
        out.print(f"wrote {path}; to train it:  titanflow run {name}")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        message = f"{path.absolute()} can't be written: {error.strerror or error}"
        hint = "run this in a folder of your own; files and their paths are found from there"
        raise ConfigError(Problem(message, "NAME", expected="a folder that can be written", hint=hint)) from None


def _is_there(path: Path) -> ConfigError:
    hint = "--print shows what would be written, and another NAME writes another file"
    return ConfigError(Problem(f"{path} is there already", "NAME", expected="a name without a file", hint=hint))


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    found = [one.partition("=") for one in given or ()]
    if wrong := [f"{key}{sign}{value}" for key, sign, value in found if not (key and sign and value)]:
        raise ConfigError(Problem(f"found {wrong[0]!r}", option, expected="two names, as text=body"))
    return {key: value for key, _, value in found}
