"""Reads the documentation of dataclass fields: the string below each, which Python itself doesn't keep."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from titanflow.config.files.schema import Schema, inline
from titanflow.config.keys.json_schema import json_schema


@cache
def described_schema(cls: type) -> Schema:
    """The schema of a dataclass, references resolved, in which each field has the string below it as its text."""
    schema = json_schema(cls)
    for one in _with_fields(cls):
        definition = schema if one is cls else schema["$defs"][one.__name__]
        # The text of a field says more than the class that it holds.
        definition.pop("description", None)
        for name, text in class_docs(one).items():
            if name in definition["properties"]:
                definition["properties"][name]["description"] = text
    return inline(schema)


def class_docs(cls: type) -> dict[str, str]:
    """Field → the text below it, of a dataclass and of those that it inherits from."""
    docs: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        file = getattr(sys.modules.get(one.__module__), "__file__", None)
        if is_dataclass(one) and file:
            docs |= field_docs(Path(file)).get(one.__name__, {})
    return docs


def _with_fields(cls: type) -> Iterator[type]:
    """A dataclass and all that its fields hold, at any depth."""
    yield cls
    for hint in get_type_hints(cls).values():
        for one in _within(hint):
            yield from _with_fields(one)


def _within(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for argument in get_args(hint):
        yield from _within(argument)


@cache
def field_docs(source: Path) -> dict[str, dict[str, str]]:
    """Class → field → the first paragraph of the string below the field, on one line; for each class of the file."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return {node.name: _docs(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs(body: list[ast.stmt]) -> dict[str, str]:
    docs: dict[str, str] = {}
    for statement, after in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            said = after.value if isinstance(after, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                docs[statement.target.id] = " ".join(said.value.strip().split("\n\n")[0].split())
    return docs
