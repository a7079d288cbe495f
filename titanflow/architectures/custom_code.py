"""A user's own code that a training module names in ``experimental.custom_import``: found, and not imported.

A stage imports it from the Python path, or from the folder one stands in, which comes last: a ``datasets.py`` of the
user's doesn't take a library's place.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.common.digests import file_digest


def custom_import(config: Mapping[str, Any]) -> str:
    """The module that a training module's config names; empty where there is none, or it is this project's own."""
    name = (config.get("experimental") or {}).get("custom_import")
    return "" if not name or name in OWN_FAMILIES.values() else str(name)


def reach_own_code() -> None:
    """Puts the folder one stands in at the end of the import path, for code that a config names."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def source_files(name: str) -> list[Path]:
    """The Python files of a module or package, by its dotted name; none where it isn't there."""
    root = _source(name)
    if root is None:
        return []
    return [root] if root.is_file() else sorted(root.rglob("*.py"))


def code_digests(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and digest of each file of the code that a config names: what a stage computes depends on them.

    A name begins with the module or package that the config names.
    """
    root = _source(custom_import(config))
    files = source_files(custom_import(config))
    return [(path.relative_to(root.parent).as_posix(), file_digest(path)) for path in files if root is not None]


def _source(name: str) -> Path | None:
    """A module's file, or a package's folder."""
    for place in [*map(Path, sys.path), Path.cwd()] if name else []:
        path = place.joinpath(*name.split("."))
        module = path.with_name(f"{path.name}.py")
        if module.is_file() and not (path / "__init__.py").is_file():
            return module
        if any(path.rglob("*.py")):
            return path
    return None
