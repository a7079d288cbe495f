"""Checks a config tree against a JSON schema, and words each mistake as a person would.

The schemas are those that pydantic makes of torchtitan's dataclasses and of this project's. Of JSON Schema only
``properties``, ``$ref``, ``type``, ``enum``, ``const``, ``anyOf``, ``items``, ``additionalProperties``, ``default``
and the bounds of numbers are read.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from titanflow.common.errors import Problem
from titanflow.common.utf8_mode import utf8_problem
from titanflow.config.files.foreign_names import foreign_hint
from titanflow.config.files.scheduler_names import scheduler_hint
from titanflow.config.files.word_hints import other_word, section_hint
from titanflow.files.yaml_source import (
    Leaf,
    Replacing,
    Tree,
    as_tree,
    first_origin,
    leaves,
    merge,
    plain,
    remade,
)

Schema = dict[str, Any]
Known = Callable[[], list[str]]
"""Lists a schema's keys, for the message about one that it lacks: most trees have none, and are checked often."""
TYPE_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "exclusiveMinimum": ("more than", operator.gt),
    "maximum": ("at most", operator.le),
    "exclusiveMaximum": ("below", operator.lt),
}
"""The kinds of bounds: in words, and as a comparison."""


@cache
def dataclass_schema(cls: type) -> Schema:
    """The schema of a dataclass, references resolved."""
    from titanflow.config.keys.json_schema import json_schema

    return inline(json_schema(cls))


def inline(schema: Schema) -> Schema:
    """The schema with each ``$ref`` replaced by its definition, over which goes what is written beside the ``$ref``."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            beside = {key: value for key, value in node.items() if key != "$ref"}
            return resolve({**definitions[node["$ref"].rsplit("/", 1)[-1]], **beside})
        return {key: resolve(value) for key, value in node.items() if key != "$defs"}

    return resolve(schema)


def merge_schemas(base: Schema, added: Schema) -> Schema:
    """Both schemas' properties; a section of both holds the keys of both."""
    properties: dict[str, Schema] = dict(base["properties"])
    for key, schema in added["properties"].items():
        below = properties.get(key, {})
        both = "properties" in below and "properties" in schema
        properties[key] = merge_schemas(below, schema) if both else schema
    return {**base, "properties": properties}


def defaults(schema: Schema) -> Any:
    """The value of a section in which nothing is set."""
    if "default" in schema:
        return schema["default"]
    if "properties" in schema:
        return {key: defaults(value) for key, value in schema["properties"].items()}
    return {"array": [], "object": {}}.get(schema.get("type", ""))


def known_keys(schema: Schema, prefix: str = "") -> list[str]:
    keys = []
    for key, value in schema.get("properties", {}).items():
        keys.append(f"{prefix}{key}")
        keys += known_keys(value, f"{prefix}{key}.")
    return keys


def fitted(tree: Tree, schema: Schema) -> Tree:
    """The tree as the schema reads it: a plain value as it was written (``1001``, ``012``) where text alone is taken.

    Sections and mappings that are written and left empty (null) are left out: they get their defaults.
    """
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    kept: Tree = {}
    for key, value in tree.items():
        below = properties.get(key, others)
        if isinstance(value, dict):
            kept[key] = fitted(value, below)
        elif value.value is not None or below.get("type") != "object":
            kept[key] = _as_text(value, below)
    return remade(tree, kept)


def _as_text(leaf: Leaf, schema: Schema) -> Leaf:
    # A number of a flow's parameter was never a text.
    text = str(leaf.value) if leaf.text is None and type(leaf.value) is int else leaf.text
    is_text = text is not None and not accepts(leaf.value, schema) and accepts(text, schema)
    return Leaf(text, leaf.origin, file=leaf.file) if is_text else leaf


def resolve(tree: Tree, schema: Schema, prefix: str = "") -> tuple[dict[str, Any], list[Problem]]:
    """The plain values of a tree over the schema's defaults, without keys that it lacks, and the tree's mistakes."""
    tree = fitted(tree, schema)
    known = {key: value for key, value in tree.items() if key in schema["properties"]}
    values = plain(merge({key: as_tree(value, "") for key, value in defaults(schema).items()}, known))
    return values, check(tree, schema, prefix)


def check_shape(tree: Tree, schema: Schema, prefix: str = "") -> list[Problem]:
    """Known keys with a value in place of a section, or the other way round: nothing else can be looked at then."""
    return check(_other_than_values(tree, schema), schema, prefix)


def _other_than_values(tree: Tree, schema: Schema) -> Tree:
    """The known keys that have something else in place of a section, or a mapping or list as their value."""
    found: Tree = {}
    for key, value in tree.items():
        below = schema["properties"].get(key, {})
        if "properties" in below:
            is_section = isinstance(value, dict) and not isinstance(value, Replacing)
            found[key] = _other_than_values(value, below) if is_section else value
        elif below and (isinstance(value, dict) or isinstance(value.value, dict | list)):
            found[key] = value
    return found


def check(tree: Tree, schema: Schema, prefix: str = "") -> list[Problem]:
    """All mistakes of ``tree``, each with its key, its origin and what is expected."""
    return _check_section(tree, schema, prefix, lambda: known_keys(schema))


def _check_section(tree: Tree, schema: Schema, prefix: str, known: Known, above: str = "") -> list[Problem]:
    problems: list[Problem] = []
    properties = schema["properties"]
    for key, value in tree.items():
        dotted = f"{above}{key}"
        if key not in properties:
            problems.append(_unknown_key(dotted, value, known(), prefix))
        elif isinstance(value, dict):
            problems += _check_mapping(value, properties[key], prefix, known, dotted)
        elif not accepts(value.value, properties[key]):
            problems += _wrong_items(f"{prefix}{dotted}", value, properties[key])
    return problems


def _wrong_items(key: str, leaf: Leaf, schema: Schema) -> list[Problem]:
    """What is wrong with a value; in a list of sections with each of these, which have numbers from 1."""
    items = schema.get("items", {})
    if not isinstance(leaf.value, list) or "properties" not in items:
        return [_wrong_value(key, leaf, schema)]
    trees = [tree for one in leaf.value if isinstance(tree := as_tree(one, leaf.origin), dict)]
    found = [problem for number, tree in enumerate(trees, 1) for problem in check(tree, items, f"{key}.{number}.")]
    is_whole = len(trees) == len(leaf.value)
    return found if found and is_whole else [_wrong_value(key, leaf, schema)]


def _check_mapping(value: Tree, schema: Schema, prefix: str, known: Known, dotted: str) -> list[Problem]:
    if isinstance(value, Replacing) and not accepts(value.value.value, schema):
        return [_wrong_value(f"{prefix}{dotted}", value.value, schema)]
    if "properties" in schema:
        return _check_section(value, schema, prefix, known, f"{dotted}.")
    items = schema.get("additionalProperties")
    if isinstance(items, dict) and "properties" in items:
        return [problem for name, item in value.items() for problem in _check_item(item, items, prefix, dotted, name)]
    if accepts(plain(value), schema):
        return []
    items = items if isinstance(items, dict) else {}
    wrong = {name: item for name, item in value.items() if not accepts(plain(item), items)}
    # Of a key without a value the whole mapping is shown.
    if wrong and all(isinstance(item, Leaf) and item.value is not None for item in wrong.values()):
        return [_wrong_value(f"{prefix}{dotted}.{name}", item, items) for name, item in wrong.items()]
    return [_wrong_value(f"{prefix}{dotted}", Leaf(plain(value), first_origin(value)), schema)]


def _check_item(item: Any, schema: Schema, prefix: str, dotted: str, name: str) -> list[Problem]:
    above = f"{dotted}.{name}"
    if not isinstance(item, dict):
        return [_wrong_value(f"{prefix}{above}", item, {"type": "object"})]
    return _check_section(item, schema, prefix, lambda: known_keys(schema, f"{above}."), f"{above}.")


def _unknown_key(dotted: str, value: Leaf | Tree, known: list[str], prefix: str) -> Problem:
    below = [f"{dotted}.{key}" for key, _ in leaves(value)] if isinstance(value, dict) else []
    written = value.value if isinstance(value, Leaf) else None
    hint = scheduler_hint(dotted, written, known, prefix) or foreign_hint([dotted, *below], known, prefix)
    if dotted in known:
        above, _, last = dotted.rpartition(".")
        hint = f"write it in its section: {above}: {{{last}: …}}"
    elif not hint:
        near = closest(dotted, known)
        hint = f"did you mean `{prefix}{near}`?" if near else "if nothing needs to read it, name it under `ignore:`"
    return Problem("unknown key", key=f"{prefix}{dotted}", origin=first_origin(value), hint=hint)


def closest(key: str, known: list[str]) -> str | None:
    """The known key that ``key`` most likely means: the nearest in its own section, or the same name elsewhere.

    A key without a section lacks it rather than being a section's name: ``lr`` is ``optimizer.lr``, not ``lora``.
    """
    section, _, name = key.rpartition(".")
    elsewhere = [one for one in known if one.rpartition(".")[2] == name]
    if elsewhere and not section:
        return elsewhere[0]
    siblings = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == section}
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return siblings[near[0]]
    if elsewhere:
        return elsewhere[0]
    # The section that it stands in is no key to write in its place.
    near = difflib.get_close_matches(key, [one for one in known if one != section], n=1, cutoff=0.8)
    return near[0] if near else None


def _wrong_value(key: str, leaf: Leaf, schema: Schema) -> Problem:
    found = leaf.value
    kind = "text" if isinstance(found, str) else type(found).__name__
    message = f"found {found!r} ({kind})" if found is not None else "found null"
    hint = ""
    if isinstance(found, str) and found.isascii() and any(accepts(value, schema) for value in _numbers(found)):
        hint = f"take the quotes off: {found}"
    elif _holds_bool(found) and _takes_text(schema):
        hint = "a text that reads like a truth value (true, false; in a list yes, no, on and off, too) needs quotes"
    elif isinstance(found, list) and any(type(one) in (int, float) for one in found) and _takes_text(schema):
        hint = "put quotes around a number that is meant as a text"
    elif isinstance(found, str) and (near := other_word(found, schema)):
        hint = f"did you mean {near}?"
    elif "properties" in schema:
        hint = section_hint(key, found, schema)
    elif found in ("float16", "fp16", "half") and accepts("bfloat16", schema):
        hint = "float16 would need its losses scaled, which torchtitan doesn't do; bfloat16 has float32's range"
    expected = describe(schema)
    if isinstance(found, float) and not math.isfinite(found):
        expected = expected.replace("a number", "a finite number")
    return Problem(message, key=key, origin=leaf.origin, expected=expected, hint=hint)


def _holds_bool(found: Any) -> bool:
    return any(isinstance(one, bool) for one in (found if isinstance(found, list) else [found]))


def _takes_text(schema: Schema) -> bool:
    """Whether any text serves here, alone or as an item of a list; a choice of words doesn't."""
    options = schema.get("anyOf", [schema])
    return any(accepts(text, option) for option in options for text in ("any text", ["any text"]))


def _numbers(text: str) -> list[Any]:
    numbers: list[Any] = []
    for kind in (int, float):
        with suppress(ValueError):
            numbers.append(kind(text))
    return numbers


def accepts(value: Any, schema: Schema) -> bool:
    """Whether a plain value fits; a whole number is a number too, true and false are neither."""
    if "anyOf" in schema:
        return any(accepts(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == option and type(value) is type(option) for option in schema["enum"])
    if "const" in schema:
        return bool(value == schema["const"] and type(value) is type(schema["const"]))
    match schema.get("type"):
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and _within(value, schema)
        case "number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            # No bound of a training is infinite, and NaN compares with nothing.
            return is_number and math.isfinite(value) and _within(value, schema)
        case "string":
            # No file system, log or database takes a NUL, and no file half a character ("\ud800").
            return isinstance(value, str) and "\0" not in value and not utf8_problem(value, "")
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return isinstance(value, list) and all(accepts(item, schema.get("items", {})) for item in value)
        case "object":
            return _accepts_object(value, schema)
    return True


def _within(value: float, schema: Schema) -> bool:
    return all(is_within(value, schema[name]) for name, (_, is_within) in BOUNDS.items() if name in schema)


def _accepts_object(value: Any, schema: Schema) -> bool:
    if not isinstance(value, dict):
        return False
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    fields = [(item, properties.get(key, others)) for key, item in value.items()]
    return all(accepts(item, field) if isinstance(field, dict) else field for item, field in fields)


def describe(schema: Schema) -> str:
    """The values that a field takes, in words."""
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array" and schema.get("items"):
        return f"a list, each item {describe(schema['items'])}"
    if schema.get("type") == "object" and (values := schema.get("additionalProperties")) and values is not True:
        return f"a mapping, each value {describe(values)}"
    bounds = " and ".join(f"{words} {schema[name]}" for name, (words, _) in BOUNDS.items() if name in schema)
    return ", ".join(part for part in (TYPE_NAMES.get(schema.get("type", ""), "any value"), bounds) if part)
