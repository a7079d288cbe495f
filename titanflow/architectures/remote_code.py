"""Whether a model's folder brings code that transformers would run, and whose code it is; none is run to tell.

With ``trust_remote_code=True`` transformers imports what ``auto_map`` names. Only two kinds of folder are trusted: one
whose Python files are all this package's own, and a repository's snapshot at the commit that the config names as read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from titanflow.architectures.hf_snapshot import repository_of
from titanflow.common.errors import ConfigError, Problem

PACKAGE = "models/remote_code"
"""The folder in ``titan`` with the modelling files that an export may bring."""

EVALS = "evals"
"""A published folder's tasks that scored it: lm-eval runs their code when asked to, transformers never does."""


def own_code() -> dict[str, Path]:
    """This package's modelling files by their names, as they lie in an export."""
    spec = find_spec("titan")
    folder = Path(spec.origin).parent / PACKAGE if spec and spec.origin else Path(PACKAGE)
    return {path.name: path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"}


def trust_remote_code(folder: Path, key: str = "", origin: str = "", commits: Mapping[str, str] | None = None) -> bool:
    """The ``trust_remote_code`` for a folder: False if it brings no code, True if its code may be run.

    ``key`` and ``origin`` are those of the setting that names the folder. ``commits`` has the repositories whose code
    was read, each with the commit at which its snapshot may run it.

    Raises:
        ConfigError: the folder brings other code, or names code that lies elsewhere.
    """
    references = [text for path in sorted(folder.glob("*config.json")) for text in _auto_map(path)]
    if not references:
        return False
    own, files = own_code(), (path.relative_to(folder) for path in folder.rglob("*.py"))
    brought = {path.as_posix() for path in files if path.parts[0] != EVALS}
    foreign = sorted(
        name for name in brought if name not in own or (folder / name).read_bytes() != own[name].read_bytes()
    )
    foreign += sorted({text for text in references if f"{text.split('.')[0]}.py" not in brought})
    elsewhere = sorted(text for text in references if "--" in text)
    if foreign and not elsewhere and (commits or {}).get(repository_of(folder)) == folder.resolve().name:
        return True
    if foreign:
        message = f"{folder} brings code of its own ({', '.join(foreign)}), which is not run"
        expected = "a model that transformers knows, or an export with this version's modelling files unchanged"
        older = "an older export of yours: export its checkpoint again"
        hint = f"{older}; a model of the Hub whose code you read: `remote_code: {{owner/name: commit}}` beside `models`"
        raise ConfigError(Problem(message, key, origin, expected, hint))
    return True


def _auto_map(path: Path) -> Iterator[str]:
    """The classes that a JSON file of the folder has transformers import, as ``module.Class``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    yield from _texts(content.get("auto_map") if isinstance(content, dict) else None)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
