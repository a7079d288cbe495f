"""Shows mistakes in a module's data as mistakes in its config: with the key, and where it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from titanflow.common.errors import DataError, Problem
from titanflow.config.checks.module import has_data, nothing_to_train_on
from titanflow.config.division import written_at
from titanflow.config.model_args import family
from titanflow.config.module import Module
from titanflow.data.files.local_files import local_files
from titanflow.planning.data_source import read_sections

DATA = "data"
"""Readers of a source report errors under this section, whichever it is in."""


@contextmanager
def named_in(module: Module, section: str = DATA) -> Iterator[None]:
    """Adds the module, its ``section``, and the file and line to an error that lacks them."""
    try:
        yield
    except DataError as error:
        raise DataError([_named(module, section, problem) for problem in error.problems]) from error


def _named(module: Module, section: str, problem: Problem) -> Problem:
    around, _, name = problem.key.partition(".")
    if problem.origin or around not in module.config:
        return problem
    key = section if around == DATA else around
    dotted = f"{module.name}.{key}.{name}" if name else f"{module.name}.{key}"
    return Problem(problem.message, dotted, written_at(module, key, name or "name"), problem.expected, problem.hint)


def without_rows(modules: Iterable[Module]) -> list[Problem]:
    """A pretraining for which nobody names rows: torchtitan's default is a folder of its own repository.

    A user's own family may read rows of its own.
    """
    return [
        nothing_to_train_on(module, "pretraining")
        for module in modules
        if module.kind == "pretrain" and family(module.config["model"]["name"]) is not None
        if not (has_data(module) or module.config["training"]["mock_data"] or module.is_written("training.dataset"))
    ]


def check_streams(modules: Iterable[Module]) -> None:
    """Refuses a stream whose files aren't there: nothing else reads it before it is trained on."""
    for module in modules:
        for section in read_sections(module) if module.trains else ():
            data = module.config[section]
            if data["streaming"] and data["path"]:
                with named_in(module, section):
                    local_files(data["path"])
