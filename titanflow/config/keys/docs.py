"""Reads the documentation of dataclass fields: the string below each, which Python itself doesn't keep."""

from __future__ import annotations

import ast
from functools import cache
from itertools import pairwise
from pathlib import Path


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
