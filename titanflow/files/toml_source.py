"""torchtitan's own config files, in TOML, with the file and line of each value kept.

Python's parser keeps no lines, so the file is parsed a second time, statement by statement. A statement ends at the
first line where it parses.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.files.yaml_source import Leaf, Tree, display, read_text

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def read_toml(path: Path) -> Tree:
    """Reads a TOML file as :func:`titanflow.files.yaml_source.read_tree` reads YAML.

    Raises:
        ConfigError: the file can't be read, or isn't UTF-8 or TOML.
    """
    shown, text = display(path), read_text(path).replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
        lines = dict(reversed(list(_lines(text))))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = (place and place[1]) or text.count("\n") + 1
        message = f"not TOML: {_PLACE.sub('', str(error))}"
        raise ConfigError(Problem(message, origin=f"{shown}:{line}")) from None
    except RecursionError:
        raise ConfigError(Problem("too many levels, one within another", origin=shown)) from None
    return {key: _tree(value, (key,), path, lines) for key, value in values.items()}


def _tree(value: Any, keys: tuple[str, ...], file: Path, lines: dict[tuple[str, ...], int]) -> Leaf | Tree:
    if isinstance(value, dict):
        return {key: _tree(item, (*keys, key), file, lines) for key, item in value.items()}
    line = next(lines[keys[:length]] for length in range(len(keys), -1, -1) if keys[:length] in lines)
    is_date = isinstance(value, datetime.date | datetime.time)
    return Leaf(str(value) if is_date else value, f"{display(file)}:{line}", file=file)


def _lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path and first line of each section and value; the empty path is the file itself."""
    yield (), 1
    above: tuple[str, ...] = ()
    begun, statement = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        begun, statement = (begun, f"{statement}\n{line}") if statement else (number, line)
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        paths = list(_paths(parsed))
        if statement.lstrip().startswith("["):
            above, paths = paths[0], [()]
        yield from (((*above, *path), begun) for path in paths)
        statement = ""


def _paths(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, (*above, key))
        else:
            yield (*above, key)
