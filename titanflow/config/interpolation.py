"""``${NAME:default}`` in a config: the environment's value, or the default."""

from __future__ import annotations

import os
import re
from typing import Any

from titanflow.config.yaml_source import Leaf, Tree, parse_scalar
from titanflow.errors import Problem

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^${}]*))?\}")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.I)


def interpolate(tree: Tree, problems: list[Problem]) -> Tree:
    """The tree with each reference replaced.

    A value that is one reference takes the type that YAML gives to what it stands for (``${STEPS:300}`` is a
    number); inside a longer text it is text. The origin names the variable: ``file:line ($STEPS)``. An unset variable
    without a default, and one that is named like a secret, go to ``problems``: secrets stay in the environment, a
    config is written to disk.
    """
    return {
        key: interpolate(value, problems) if isinstance(value, dict) else _interpolate_leaf(key, value, problems)
        for key, value in tree.items()
    }


def _interpolate_leaf(key: str, leaf: Leaf, problems: list[Problem]) -> Leaf:
    value = _interpolate_value(key, leaf.value, leaf.origin, problems)
    texts = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    names = dict.fromkeys(match[1] for text in texts if isinstance(text, str) for match in REFERENCE.finditer(text))
    said = ", ".join(f"${name}" if name in os.environ else f"${name} unset" for name in names)
    return Leaf(value, f"{leaf.origin} ({said})" if said else leaf.origin)


def _interpolate_value(key: str, value: Any, origin: str, problems: list[Problem]) -> Any:
    if isinstance(value, list):
        return [_interpolate_value(key, item, origin, problems) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replacement(match: re.Match[str]) -> str:
        name, default = match.groups()
        if SECRET.search(name):
            problems.append(
                Problem(
                    f"${{{name}}} looks like a secret, and a config is written to disk",
                    key=key,
                    origin=origin,
                    hint=f"leave it out: what needs {name} reads it from the environment itself",
                )
            )
            return ""
        found = os.environ.get(name, default)
        if found is None:
            problems.append(
                Problem(
                    f"the environment has no {name}, and there is no default",
                    key=key,
                    origin=origin,
                    expected=f"export {name}=…, or ${{{name}:default}} here",
                )
            )
            return ""
        return found

    text, whole = value, REFERENCE.fullmatch(value) is not None
    while REFERENCE.search(text):
        whole = whole or REFERENCE.fullmatch(text) is not None
        text = REFERENCE.sub(replacement, text)
    return parse_scalar(text) if whole else text
