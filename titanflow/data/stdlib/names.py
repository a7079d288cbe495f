"""The public classes and functions of the Python standard library, found by introspection.

Importing a hundred modules leaves traces (patched hooks, warnings, threads). So :func:`read_names` runs this file as a
script in its own process, isolated and without site-packages; the file therefore imports nothing of titanflow.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType

# Modules with side effects (they open a browser, print a poem, set up a terminal), tests, and tools of no interest.
NOT_IMPORTED = frozenset(
    {
        *("antigravity", "this", "readline", "rlcompleter", "curses", "pty", "tty", "site", "sitecustomize"),
        *("tkinter", "turtle", "turtledemo", "idlelib", "lib2to3", "test", "tests", "pydoc_data", "distutils"),
        *("encodings", "ensurepip", "venv", "msilib", "nt", "xxlimited", "xxsubtype"),
    }
)
SUMMARY_LENGTH = range(12, 91)


@dataclass(frozen=True)
class PublicName:
    """A public class or function of the library.

    Attributes:
        name: as one would import it, ``json.JSONDecodeError``.
        kind: ``class`` or ``function``.
        module: the module that defines it (its ``__module__``), ``json.decoder``.
        defined: where it is defined, ``json.decoder.JSONDecodeError``: the same for all its public names.
        summary: the first line of its docstring; empty if that isn't a sentence of 12 to 90 characters.
    """

    name: str
    kind: str
    module: str
    defined: str
    summary: str


@cache
def read_names() -> tuple[PublicName, ...]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-I", "-S", "-B", __file__]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"introspection of the standard library failed:\n{done.stderr.strip()}")
    return tuple(PublicName(**row) for row in json.loads(done.stdout.splitlines()[-1]))


def public_modules() -> list[str]:
    found = []
    for name in sorted(filter(_is_public, sys.stdlib_module_names)):
        if (module := _imported(name)) is None:
            continue
        found.append(name)
        for _, child, _ in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.", onerror=lambda _: None):
            if all(_is_public(part) for part in child.split(".")):
                found.append(child)
    return sorted(found)


def public_names() -> list[PublicName]:
    """Imports the public modules and lists their public names; call it in a process of its own."""
    names: dict[str, PublicName] = {}
    for module_name in public_modules():
        if (module := _imported(module_name)) is None:
            continue
        for attribute in _attributes(module):
            if found := _describe(module_name, attribute, getattr(module, attribute, None)):
                names[found.name] = found
    return [names[name] for name in sorted(names)]


def _is_public(part: str) -> bool:
    return not part.startswith("_") and part not in NOT_IMPORTED


def _imported(name: str) -> ModuleType | None:
    # Modules of other platforms raise errors of all kinds, and some modules exit the interpreter.
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def _attributes(module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    return sorted(name for name in (listed if listed is not None else vars(module)) if not name.startswith("_"))


def _describe(module_name: str, attribute: str, value: object) -> PublicName | None:
    if not (inspect.isclass(value) or inspect.isfunction(value) or inspect.isbuiltin(value)):
        return None
    defining, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not isinstance(defining, str) or not isinstance(name, str) or name != attribute:
        return None
    # A name counts only in the package that defines it, not wherever else it was imported.
    package = module_name.partition(".")[0]
    if defining.partition(".")[0] != package or not all(_is_public(part) for part in defining.split(".")):
        return None
    kind = "class" if inspect.isclass(value) else "function"
    return PublicName(f"{module_name}.{name}", kind, defining, f"{defining}.{name}", _summary(value))


def _summary(value: object) -> str:
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    if not isinstance(docstring, str) or not docstring.strip():
        return ""
    line = re.sub(r"\s+", " ", docstring.strip().splitlines()[0]).strip()
    return line if len(line) in SUMMARY_LENGTH and " " in line and "(" not in line.split(" ")[0] else ""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answer = sys.stdout
    # Modules that print while they are imported must not garble the answer.
    sys.stdout = sys.stderr
    rows = [asdict(name) for name in public_names()]
    answer.write("\n" + json.dumps(rows) + "\n")
    answer.flush()
    os._exit(0)
