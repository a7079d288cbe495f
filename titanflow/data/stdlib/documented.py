"""The standard library's documented files: better text than the whole library, for a training that comes later."""

from __future__ import annotations

import ast
from itertools import islice
from pathlib import Path

from titanflow.data.stdlib.text import documents

LEAST_SHARE = 0.25
"""The share of a file's text that its docstrings have: 30 % of the library's text lies in such files."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documented(part: str = "train", limit: int | None = None) -> list[tuple[str, Path]]:
    """The text of each documented file, and the file, at most ``limit``.

    What is held out is all that :func:`~titanflow.data.stdlib.text.documents` holds out, documented or not: the losses
    of both are measured on the same text.
    """
    found = documents(part)
    if part == "train":
        found = [(text, file) for text, file in found if docstring_share(text) >= LEAST_SHARE]
    return list(islice(found, limit))


def docstring_share(source: str) -> float:
    """How much of a file's text the docstrings are, from 0 to 1."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, _DOCUMENTED))
    return sum(len(ast.get_docstring(node, clean=False) or "") for node in nodes) / len(source)
