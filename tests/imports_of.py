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
    """File → the files that it imports. A package's ``__init__.py`` counts where it is named itself."""
    return {path: {other for other, _ in names} for path, names in imported_names(root).items()}


@functools.cache
def imported_names(root: Path) -> dict[Path, set[tuple[Path, str]]]:
    """File → what it imports: the other file, and the name in it (empty for the file itself)."""
    files = source_files(root)
    by_name = {_module(path): path for path in files}
    found: dict[Path, set[tuple[Path, str]]] = {path: set() for path in files}
    for path in files:
        for names in names_imported(root / path, path.parent.parts):
            module = next((one for one in names if one in by_name), "")
            if module:
                found[path].add((by_name[module], names[0].removeprefix(module).removeprefix(".")))
    return found


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def names_imported(path: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What each import may name, the likeliest first: ``from a import b`` is the module ``a.b``, or a name in ``a``.

    ``package`` holds the file, and relative imports begin there. A computed name isn't known.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((alias.name,) for alias in node.names)
            case ast.ImportFrom():
                start = package[: len(package) + 1 - node.level] if node.level else ()
                module = ".".join([*start, *filter(None, [node.module])])
                yield from ((f"{module}.{alias.name}", module) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield (name,)
