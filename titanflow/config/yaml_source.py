"""YAML with the file and line of each value kept.

A file becomes a tree: a mapping is a ``dict``, anything else a :class:`Leaf`, which knows where it was written.
Numbers follow YAML 1.2, so that ``1e-4`` is a number and not, as in YAML 1.1, a string; a day as ``2026-11-21`` is
the text that it is written as.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from titanflow.errors import ConfigError, Problem

FLOAT = re.compile(
    r"^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|nan)$", re.I
)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's floats, and without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML reads a class attribute)
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Leaf:
    """A value and where it was written: ``file:line``, or the words of a command line."""

    value: Any
    origin: str


Tree: TypeAlias = dict[str, Any]
"""Mappings as dicts, everything else as Leaf."""


def parse_scalar(text: str) -> Any:
    """The value that YAML gives to a piece of text: ``"3"`` → 3, ``"[a, b]"`` → a list, ``""`` → None."""
    return yaml.load(text, Loader)


def read_tree(path: Path) -> Tree:
    """Reads a YAML file whose top is a mapping.

    Raises:
        ConfigError: no such file, not YAML, a key twice, or a top that isn't a mapping.
    """
    shown = display(path)
    try:
        node = yaml.compose(path.read_text(), Loader)
    except FileNotFoundError:
        raise ConfigError(Problem("no such file", origin=shown)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(Problem(f"not YAML: {error.problem}", origin=f"{shown}:{line}")) from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(Problem("the top of the file isn't a mapping", origin=f"{shown}:1", expected="key: value"))
    problems: list[Problem] = []
    tree = _mapping(node, shown, problems)
    if problems:
        raise ConfigError(problems)
    return tree


def _mapping(node: yaml.MappingNode, file: str, problems: list[Problem]) -> Tree:
    tree: Tree = {}
    written: set[str] = set()
    for key_node, value_node in node.value:
        key, origin = key_node.value, f"{file}:{key_node.start_mark.line + 1}"
        if key == "<<":
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in reversed(sources):
                tree = merge(_mapping(source, file, problems), tree)
            continue
        if key in written:
            problems.append(Problem("stands here a second time", key=key, origin=origin))
        written.add(key)
        if isinstance(value_node, yaml.MappingNode):
            tree[key] = _mapping(value_node, file, problems)
        else:
            tree[key] = Leaf(_construct(value_node), f"{file}:{value_node.start_mark.line + 1}")
    return tree


def _construct(node: yaml.Node) -> Any:
    loader = Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def merge(base: Tree, over: Tree) -> Tree:
    """``base`` with ``over`` laid on top: mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """Each leaf with its dotted key; an empty mapping has none."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain nested mappings by dotted key; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        flat |= flatten(value, f"{dotted}.") if isinstance(value, Mapping) and value else {dotted: value}
    return flat


def plain(tree: Any) -> Any:
    """The tree's values without their origins."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.value if isinstance(tree, Leaf) else tree


def set_leaf(tree: Tree, dotted: str, leaf: Leaf) -> None:
    """Sets one leaf by its dotted key, making the mappings above it."""
    *above, last = dotted.split(".")
    for key in above:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[last] = leaf


def first_origin(tree: Any) -> str:
    """Where a subtree begins, for a message about all of it."""
    if isinstance(tree, Leaf):
        return tree.origin
    return next((leaf.origin for _, leaf in leaves(tree)), "")


def display(path: Path) -> str:
    """A path as a person would type it: relative to the folder they stand in where it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
