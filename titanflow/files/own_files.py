"""Files that this project wrote and reads again: one message if one of them is damaged, or another version's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from titanflow.common.errors import DataError, Problem
from titanflow.files.yaml_loader import FAST_LOADER

OTHER_RUN = "--run NAME makes a run beside this one"
"""What to do about a file of a run: what the stage made may be whole."""

DAMAGES = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError)
"""What a reader raises of a file that holds something else than was written."""


@contextmanager
def readable(path: Path, hint: str = OTHER_RUN) -> Iterator[None]:
    """Refuses a file that the block can't read, or that another version wrote.

    Args:
        path: the file that the message names.
        hint: what to do about it.

    Raises:
        DataError: the block found the file damaged.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        found = ": ".join([*map(str, first["loc"]), first["msg"]])
        message = f"another version of titanflow wrote it, or it was changed ({found})"
        raise DataError(Problem(message, origin=str(path), hint=hint)) from error
    except DAMAGES as error:
        raise DataError(Problem(f"can't be read: {_told(error)}", origin=str(path), hint=hint)) from error


def parse_yaml(text: str) -> Any:
    """What YAML says that this project wrote."""
    return yaml.load(text, FAST_LOADER)


def read_mapping(path: Path, hint: str = OTHER_RUN) -> dict[str, Any]:
    """The mapping that a JSON file holds.

    Raises:
        DataError: the file isn't there, or holds anything else.
    """
    with readable(path, hint):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError("it holds no mapping")
        return found


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return next(iter(str(error).splitlines()), type(error).__name__)
