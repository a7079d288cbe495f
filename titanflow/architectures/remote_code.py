"""Whether a model's folder brings code that transformers would run, and whose it is: known without running any.

transformers imports what ``auto_map`` names when it is told ``trust_remote_code=True``. Here it is told so for two
kinds of folder alone: one in which every line of Python is this package's own, and the snapshot of a repository at the
very commit that the config names as read.
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
"""Where in ``titan`` the modelling files are that an export may bring."""


EVALS = "evals"
"""Where a published folder has the tasks that scored it: lm-eval runs their files when it is asked to, transformers
never."""


def own_code() -> dict[str, Path]:
    """This package's modelling files by their names, as they lie in an export."""
    spec = find_spec("titan")
    folder = Path(spec.origin).parent / PACKAGE if spec and spec.origin else Path(PACKAGE)
    return {path.name: path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"}


def trust_remote_code(folder: Path, key: str = "", origin: str = "", commits: Mapping[str, str] | None = None) -> bool:
    """What transformers is to be told about a folder: False where it brings no code, True where it may be run.

    Args:
        folder: what transformers would load.
        key: the setting that names the folder, for the message.
        origin: where the setting stands.
        commits: of repositories whose own code was read, and at which commit: their snapshots may run it.

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
        raise ConfigError(
            Problem(
                f"{folder} brings code of its own ({', '.join(foreign)}), which is not run",
                key=key,
                origin=origin,
                expected="a model that transformers knows, or an export with this version's modelling files unchanged",
                hint="an older export of yours: export its checkpoint again; a model of the Hub whose code you read: "
                "evaluate.remote_code: {owner/name: commit}",
            )
        )
    return True


def _auto_map(path: Path) -> Iterator[str]:
    """The classes that a JSON file of the folder has transformers import, as ``module.Class``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    auto_map = content.get("auto_map") if isinstance(content, dict) else None
    yield from _texts(auto_map)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
