"""A user's own code that a training module names in ``experimental.custom_import``: found, and not imported.

A stage imports it from the Python path. The current folder comes last, so that a user's ``datasets.py`` can't replace a
library.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.common.digests import file_digest


def custom_import(config: Mapping[str, Any]) -> str:
    """The module that a training module's config names; empty if it names none, or one of this project's own."""
    name = (config.get("experimental") or {}).get("custom_import")
    return "" if not name or name in OWN_FAMILIES.values() else str(name)


def reach_own_code() -> None:
    """Puts the current folder at the end of the import path, for code that a config names."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def source_files(name: str) -> list[Path]:
    """The Python files of a module or package, by its dotted name; none if it isn't there."""
    root = _source(name)
    if root is None:
        return []
    return [root] if root.is_file() else sorted(root.rglob("*.py"))


def code_digests(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Path, beginning with the module or package, and digest of each file of the code that a config names."""
    name = custom_import(config)
    root = _source(name)
    return [(path.relative_to(root.parent).as_posix(), file_digest(path)) for path in source_files(name) if root]


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
