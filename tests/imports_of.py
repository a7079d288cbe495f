"""Which file imports which, read from the code alone: lazy imports and those for type checking included."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("deployments", "flows", "tasks", "titan", "titanflow")


def source_files(root: Path) -> list[Path]:
    """Every Python file of the packages below ``root``, relative to it."""
    return sorted(path.relative_to(root) for name in PACKAGES for path in (root / name).rglob("*.py"))


def imports(root: Path) -> dict[Path, set[Path]]:
    """File → the files that it imports; a package's empty ``__init__.py`` is none of them."""
    return {path: {other for other, _ in names} for path, names in imported_names(root).items()}


@functools.cache
def imported_names(root: Path) -> dict[Path, set[tuple[Path, str]]]:
    """File → what it imports: the other file, and the name in it (empty for the file itself)."""
    files = source_files(root)
    by_name = {_module(path): path for path in files}
    found: dict[Path, set[tuple[Path, str]]] = {path: set() for path in files}
    for path in files:
        for names in _imported((root / path).read_text(encoding="utf-8")):
            module = next((one for one in names if one in by_name), "")
            if module and by_name[module].name != "__init__.py":
                found[path].add((by_name[module], names[0].removeprefix(module).removeprefix(".")))
    return found


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(code: str) -> Iterator[tuple[str, ...]]:
    """What each import may name, the likeliest first: ``from a import b`` is the module ``a.b``, or a name in ``a``."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((f"{node.module}.{alias.name}", node.module) for alias in node.names)
