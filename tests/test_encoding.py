"""Files are UTF-8 in whatever locale: each text file is opened with its encoding named."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("titanflow", "titan", "tasks", "flows", "deployments")
OF_BYTES = {"gzip", "bz2", "lzma", "tokenize"}
"""Modules whose ``open`` reads bytes, or finds the encoding itself."""


def unnamed(source: str) -> Iterator[int]:
    """The lines on which a text file is opened without its encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of_bytes = isinstance(node.func.value, ast.Name) and node.func.value.id in OF_BYTES
        modes = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else None if modes else "r"
        is_text = isinstance(mode, str) and "b" not in mode and not of_bytes
        opens = node.func.attr == "open" and is_text
        reads = node.func.attr == "read_text" or (node.func.attr == "write_text" and len(node.args) == 1)
        if (opens or reads) and not any(keyword.arg == "encoding" for keyword in node.keywords):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", [1]),
        ("path.read_text(encoding='utf-8')", []),
        ("path.write_text(text)", [1]),
        ("path.open('a')", [1]),
        ("path.open()", [1]),
        ("path.open(mode='rb')", []),
        ("path.open('ab')", []),
        ("gzip.open(path)", []),
        ("Manifest.open(folder)", []),
    ],
)
def test_a_file_without_an_encoding_is_found(source: str, found: list[int]) -> None:
    assert list(unnamed(source)) == found


def test_every_text_file_is_opened_with_its_encoding() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [f"{path}:{line}" for path in paths for line in unnamed(path.read_text(encoding="utf-8"))] == []
