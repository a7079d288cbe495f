"""A config that stands in no file: a mapping as JSON, written by a Python program or on a command line."""

from __future__ import annotations

import json
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.utf8_mode import utf8_problem
from titanflow.files.yaml_source import BY_NAME, Leaf, Tree

GIVEN = "the given experiment"
"""The origin of each of its values: there is no file and line."""


def is_json(named: str) -> bool:
    """Whether a text is itself a mapping, and names no file: no file's name begins with a brace."""
    return named.lstrip().startswith("{")


def parse_tree(text: str) -> Tree:
    """Reads a mapping. Files that it names are looked for as those of a command line are: no file stands beside it.

    Raises:
        ConfigError: the text isn't JSON or not in UTF-8, has a key twice, or a number that no config takes.
    """
    if problem := utf8_problem(text, origin=GIVEN, key=""):
        raise ConfigError(problem)
    try:
        value = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except RecursionError:
        raise ConfigError(Problem("too many levels, one within another", origin=GIVEN)) from None
    except ValueError as error:
        raise ConfigError(Problem(f"not JSON: {error}", origin=GIVEN, expected='{"exp_name": …}')) from None
    if BY_NAME in value:
        value[BY_NAME] = _by_name(value[BY_NAME])
    return {key: _tree(item) for key, item in value.items()}


def _tree(value: Any) -> Leaf | Tree:
    if isinstance(value, dict):
        return {key: _tree(item) for key, item in value.items()}
    # As of YAML: a number may be meant as its text where a key wants one.
    return Leaf(value, GIVEN, json.dumps(value) if isinstance(value, int | float) else None)


def _by_name(modules: Any) -> Any:
    """A list of mappings that each have a ``name`` as a mapping by these names; anything else as it is."""
    items = modules if isinstance(modules, list) else []
    named = [
        (item["name"], {key: value for key, value in item.items() if key != "name"})
        for item in items
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]
    return _without_twins(named) if named and len(named) == len(items) else modules


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(Problem("stands here a second time", key, GIVEN))
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ConfigError(Problem(f"found {name}", origin=GIVEN, expected="a finite number"))
