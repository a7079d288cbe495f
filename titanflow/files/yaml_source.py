"""YAML with the file and line of each value kept.

A file becomes a tree: a mapping is a ``dict``, anything else a :class:`Leaf`, which knows where it was written.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from titanflow.common.errors import ConfigError, Problem
from titanflow.files.yaml_loader import TAG, Loader

BY_NAME = "modules"
"""The key at the top of a file whose value may also be a list of mappings, each with a ``name``."""


@dataclass(frozen=True)
class Leaf:
    """A value and where it was written: ``file:line``, or the words of a command line.

    ``text`` is the value for a key that wants a text, such as a user's name that is written ``1001``; None if the
    value serves there too. A file that it names is looked for beside ``file``; None for a command line.
    """

    value: Any
    origin: str
    text: Any = None
    file: Path | None = None


Tree: TypeAlias = dict[str, Any]
"""Mappings as dicts, everything else as Leaf."""


def parse_scalar(text: str) -> Any:
    """The value that YAML gives to a piece of text: ``"3"`` → 3, ``"[a, b]"`` → a list, ``""`` → None.

    Text that YAML can't read, or would cut as a comment, is returned as it is.
    """
    stripped = text.strip()
    try:
        if stripped[:1] in ("[", "{", '"', "'"):
            return yaml.load(stripped, Loader)
        return _construct(yaml.ScalarNode(Loader("").resolve(yaml.ScalarNode, stripped, (True, False)), stripped))
    except (yaml.YAMLError, ValueError, RecursionError):
        return stripped


def read_text(path: Path) -> str:
    with refusing_what_is_no_yaml(path):
        return path.read_bytes().decode("utf-8-sig")


def read_tree(path: Path) -> Tree:
    """Reads a YAML file whose top is a mapping.

    Raises:
        ConfigError: the file can't be read, isn't UTF-8 or YAML, has a key twice, or its top isn't a mapping.
    """
    problems: list[Problem] = []
    with refusing_what_is_no_yaml(path):
        node = _composed(read_text(path))
        tree = _tree(node, _File(path, display(path)), problems)
    if problems:
        raise ConfigError(problems)
    return tree


@functools.lru_cache(maxsize=128)
def _composed(text: str) -> yaml.Node | None:
    """The nodes of a text, which nobody may change: modules extend the same files, and nights read them again."""
    return yaml.compose(text, Loader)


@dataclass(frozen=True)
class _File:
    """A file that is read, or the words of a command line (None), and how messages call it."""

    path: Path | None
    shown: str

    def line(self, node: yaml.Node) -> str:
        return f"{self.shown}:{node.start_mark.line + 1}" if self.path else self.shown


def parse_mapping(text: str, origin: str) -> Tree:
    """The tree of a mapping that :func:`parse_scalar` reads, of one origin."""
    problems: list[Problem] = []
    tree = _tree(yaml.compose(text, Loader), _File(None, origin), problems)
    if problems:
        raise ConfigError(problems)
    return tree


@contextmanager
def refusing_what_is_no_yaml(path: Path) -> Iterator[None]:
    """Turns any error of reading a file as YAML into a :class:`ConfigError` with its line."""
    shown = display(path)
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(Problem("no such file", origin=shown)) from None
    except OSError as error:
        raise ConfigError(Problem(f"can't be read: {error.strerror}", origin=shown)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"not UTF-8: {error.reason} at byte {error.start}"
        raise ConfigError(Problem(message, origin=f"{shown}:{line}", expected="a file in UTF-8")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not YAML: {error.problem or error.context}"
        raise ConfigError(Problem(message, origin=f"{shown}:{mark.line + 1 if mark else 1}")) from None
    except yaml.reader.ReaderError as error:
        line = path.read_bytes().decode("utf-8-sig").count("\n", 0, error.position) + 1
        message = f"not YAML: the character {chr(error.character)!r} may not stand in it"
        raise ConfigError(Problem(message, origin=f"{shown}:{line}")) from None
    except RecursionError:
        raise ConfigError(Problem("too many levels, one within another", origin=shown)) from None
    except ValueError as error:
        raise ConfigError(Problem(f"not YAML: {error}", origin=shown)) from None


def _tree(node: yaml.Node | None, file: _File, problems: list[Problem]) -> Tree:
    if node is None or (isinstance(node, yaml.ScalarNode) and _construct(node) is None):
        return {}
    if not isinstance(node, yaml.MappingNode):
        message = "the top of the file isn't a mapping"
        raise ConfigError(Problem(message, origin=f"{file.shown}:1", expected="key: value"))
    pairs = [(key, _by_name(value) if key.value == BY_NAME else value) for key, value in node.value]
    top = yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark, node.flow_style)
    return _mapping(top, file, problems, (node,))


def _by_name(node: yaml.Node) -> yaml.Node:
    """Turns a list of mappings that each have a ``name`` into a mapping by these names; returns anything else as is."""
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    named = [_name_of(item) for item in items]
    if not named or not all(named):
        return node
    pairs = []
    for item, pair in zip(items, named, strict=True):
        assert pair is not None
        # A second ``name`` stays, so that the schema refuses it as an unknown key.
        others = [other for other in item.value if other is not pair]
        pairs.append((pair[1], yaml.MappingNode(item.tag, others, item.start_mark)))
    return yaml.MappingNode(f"{TAG}map", pairs, node.start_mark, node.end_mark)


def _name_of(node: yaml.Node) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == "name" and isinstance(pair[1], yaml.ScalarNode)), None)


def _mapping(node: yaml.MappingNode, file: _File, problems: list[Problem], above: tuple[yaml.Node, ...]) -> Tree:
    """A mapping's tree. Its own keys override those that ``<<`` merges, wherever ``<<`` stands, as YAML says."""
    tree: Tree = {}
    merged: Tree = {}
    above = (*above, node)
    if node.tag != f"{TAG}map":
        problems.append(Problem(f"found the tag {node.tag}", origin=file.line(node), expected="no tag"))
    for key_node, value_node in node.value:
        key, origin = key_node.value, file.line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem("a key is a text, not a list or a mapping", origin=origin))
        elif value_node in above:
            problems.append(Problem("stands within itself", key=key, origin=origin))
        elif (
            ":" in key
            and node.flow_style
            and not (key_node.style or value_node.value or getattr(value_node, "style", "{"))
        ):
            expected = f"a space behind the colon: {{{key.replace(':', ': ', 1)}}}"
            problems.append(Problem(f"found {{{key}}}, a key without a value", origin=origin, expected=expected))
        elif key == "<<":
            merged = {**_merged(value_node, file, origin, problems, above), **merged}
        else:
            if key in tree:
                problems.append(Problem("stands here a second time", key=key, origin=origin))
            tree[key] = _value(value_node, file, problems, above)
    return {**merged, **tree}


def _merged(node: yaml.Node, file: _File, origin: str, problems: list[Problem], above: tuple[yaml.Node, ...]) -> Tree:
    """The tree of a merge key's mappings, of which earlier ones override later ones."""
    tree: Tree = {}
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(source, yaml.MappingNode):
            problems.append(Problem("<< takes a mapping, or a list of them", key="<<", origin=origin))
        elif source not in above:
            tree = {**_mapping(source, file, problems, above), **tree}
    return tree


def _value(node: yaml.Node, file: _File, problems: list[Problem], above: tuple[yaml.Node, ...]) -> Leaf | Tree:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, file, problems, above)
    value = _construct(node)
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return Leaf(value, file.line(node), node.value if is_plain and may_be_text(value, node.value) else None, file.path)


def may_be_text(value: Any, written: str) -> bool:
    """Whether a plain value may be meant as its text: a number, or a truth value of YAML 1.1 alone, as yes and off."""
    if isinstance(value, bool):
        return written.strip().lower() not in ("true", "false")
    return isinstance(value, int | float)


def _construct(node: yaml.Node) -> Any:
    loader = Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def as_tree(value: Any, origin: str) -> Leaf | Tree:
    """A plain value as a tree whose leaves all have one origin."""
    if isinstance(value, dict):
        return {str(key): as_tree(item, origin) for key, item in value.items()}
    return Leaf(value, origin)


class Replacing(dict[str, Any]):
    """A mapping that replaces a plain value. It keeps that value, so that the check can report it."""

    def __init__(self, tree: Tree, value: Leaf) -> None:
        super().__init__(tree)
        self.value = value


def remade(tree: Tree, made: Tree) -> Tree:
    """``made``, a new version of ``tree``; it keeps the value that ``tree`` replaces, if any."""
    return Replacing(made, tree.value) if isinstance(tree, Replacing) else made


def merge(base: Tree, over: Tree, null_clears: bool = False) -> Tree:
    """``base`` with ``over`` laid on top: mappings are merged, anything else is replaced.

    A section that is left empty (null) changes nothing of the one below it; with ``null_clears`` it takes the place
    of that, so that its keys get their defaults. A mapping that takes the place of a value
    keeps it (:class:`Replacing`), for the check. A key that ``base`` lacks stands before the key that follows it in
    ``over``: so a stage may be written between two of an experiment that is extended.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict):
            merged[key] = _laid_over(below, value, null_clears)
        elif null_clears or value.value is not None or not isinstance(below, dict):
            merged[key] = value
    return {key: merged[key] for key in _in_both_orders(list(base), list(over))}


def _in_both_orders(keys: list[str], more: list[str]) -> list[str]:
    """``keys``, with those of ``more`` that it lacks before what follows them there."""
    place = len(keys)
    for key in reversed(more):
        if key in keys:
            place = keys.index(key)
        else:
            keys.insert(place, key)
    return keys


def _laid_over(below: Leaf | Tree | None, over: Tree, null_clears: bool) -> Tree:
    if isinstance(below, Leaf):
        return over if below.value is None else Replacing(over, below)
    replaced = next((one.value for one in (below, over) if isinstance(one, Replacing)), None)
    merged = merge(below or {}, over, null_clears)
    return merged if replaced is None else Replacing(merged, replaced)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """Each leaf with its dotted key. An empty mapping below the top counts as a leaf without an origin."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, Leaf({}, "") if isinstance(value, dict) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of plain nested mappings by dotted key; an empty mapping is a value."""
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


def in_one_line(tree: Tree) -> str:
    """A mapping as one line of YAML without its outer braces, as a person would write it."""
    return yaml.safe_dump(plain(tree), default_flow_style=True, sort_keys=False, width=math.inf).strip()[1:-1]


def set_leaf(tree: Tree, dotted: str, leaf: Leaf | Tree) -> None:
    """Lays a value or a section over the tree at a dotted key; null clears a section."""
    tree.update(merge(tree, nested(dotted, leaf), null_clears=True))


def nested(dotted: str, leaf: Leaf | Tree) -> Tree:
    """The tree in which a value or a section stands alone, at a dotted key."""
    first, *rest = dotted.split(".")
    return {first: functools.reduce(lambda below, key: {key: below}, reversed(rest), leaf)}


def above(tree: Tree, dotted: str) -> tuple[Tree, str]:
    """The section of a dotted key (a new empty one where there is none), and the key's last name."""
    *sections, last = dotted.split(".")
    found: Any = tree
    for name in sections:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}, last


def take_out(tree: Tree, keys: Iterable[str], prefix: str = "") -> list[str]:
    """Takes dotted keys out of the tree; returns ``key (origin)`` of each that was there, headed by ``prefix``."""
    places = ((key, *above(tree, key)) for key in keys)
    return [f"{prefix}{key} ({first_origin(section.pop(last))})" for key, section, last in places if last in section]


def first_origin(tree: Any) -> str:
    """Where a subtree begins, for a message about the whole of it."""
    if isinstance(tree, Leaf):
        return tree.origin
    return next((leaf.origin for _, leaf in leaves(tree)), "")


def display(path: Path) -> str:
    """A path as a person would type it: relative if it lies below the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
