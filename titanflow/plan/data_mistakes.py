"""What is wrong with the data of a module, as a mistake in its config: under its key, and where that was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.config.checks.module import has_data
from titanflow.config.division import written_at
from titanflow.config.module import Module

DATA = "data"
"""How those who read a source call its section, whichever it is."""


@contextmanager
def named_in(module: Module, section: str = DATA) -> Iterator[None]:
    """Names the module, its ``section``, and the file and line, where an error knows of none of them.

    Raises:
        DataError: in place of one that has no origin.
    """
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


def check_streams(modules: Iterable[Module]) -> None:
    """Refuses a stream whose files aren't there, which nothing reads before it is trained on.

    Raises:
        DataError: names the first such file.
    """
    from titanflow.data.files.local_files import local_files

    for module in modules:
        for section, data in _streams(module):
            if data["path"]:
                with named_in(module, section):
                    local_files(data["path"])


def _streams(module: Module) -> Iterator[tuple[str, dict[str, Any]]]:
    if not module.trains or module.config["training"]["mock_data"]:
        return
    for section in (DATA, "validation_data"):
        is_read = section == DATA or module.config["validation"]["enable"]
        if is_read and has_data(module, section) and module.config[section]["streaming"]:
            yield section, module.config[section]
