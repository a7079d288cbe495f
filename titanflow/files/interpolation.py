"""``${NAME:default}`` in a config: the environment's value, or the default."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from titanflow.common.errors import Problem
from titanflow.common.utf8_mode import utf8_problem
from titanflow.files.yaml_source import Leaf, Tree, parse_scalar, remade

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)(?![A-Z])", re.I)
"""The name of a variable that holds a credential; TOKENIZER and MAX_TOKENS don't match."""
FORM = "${NAME} or ${NAME:default}"
SHELL = re.compile(r"(?:^|/)\$([A-Za-z_][A-Za-z0-9_]*)(?=/|$)")
"""A shell's way to write a variable, alone or as a part of a path; here it would be the name of a folder."""


def replaced(tree: Tree, problems: list[Problem], prefix: str = "") -> Tree:
    """The tree with each reference replaced; adds the mistakes. Only a text has references, alone or in a list."""
    made: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            made[key] = replaced(value, problems, f"{prefix}{key}.")
        elif isinstance(value.value, str | list | dict):
            made[key], found = interpolate(f"{prefix}{key}", value)
            problems += found
        else:
            made[key] = value
    return remade(tree, made)


def interpolate(key: str, leaf: Leaf) -> tuple[Leaf, list[Problem]]:
    """A key's value with each reference replaced, and the mistakes. References in the environment's own values stay.

    If the whole value is one reference, it takes the type that its key wants: ``${STEPS:300}`` is a number, or a text
    for a key that wants one. Inside a longer text it is text. The origin names the variable: ``file:line ($STEPS)``.
    Mistakes are unset variables without a default, malformed references, and variables that are named like a secret: a
    config is written to disk, and secrets must not be.
    """
    references = _References(key, leaf.origin)
    value, text = references.replaced(leaf.value)
    said = ", ".join(f"${name}" if name in os.environ else f"${name} unset" for name in dict.fromkeys(references.names))
    return Leaf(value, f"{leaf.origin} ({said})", text, leaf.file) if said else leaf, references.problems


class _Malformed(ValueError):
    """A reference that isn't in :data:`FORM`."""


@dataclass
class _References:
    """The references of one leaf; ``names`` collects their variables, ``problems`` their mistakes."""

    key: str
    origin: str
    problems: list[Problem] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def replaced(self, value: Any) -> tuple[Any, Any]:
        """A value with its references replaced, and the text of it for a key that wants one."""
        if isinstance(value, list):
            both = [self.replaced(item) for item in value]
            return [one for one, _ in both], [one if text is None else text for one, text in both]
        if isinstance(value, dict):
            return {key: self.replaced(item)[0] for key, item in value.items()}, None
        if not isinstance(value, str) or "$" not in value:
            return value, None
        try:
            _refuse_shells(value)
            if "${" not in value:
                return value, None
            if not value.startswith("${") or _end(value, 0) != len(value):
                return self._joined(value), None
            found, is_default, _ = self._reference(value, 0)
        except _Malformed as error:
            found, minus = str(error), "a default that begins with a minus is written as ${NAME: -1}"
            hint = minus if found.startswith("${") else f"a text that is meant so: ${{DOLLAR:$}}{found[1:]}"
            self.problems.append(Problem(f"found {found}", self.key, self.origin, FORM, hint))
            return value, None
        # A default is YAML. The environment's value is a text, so quotation marks belong to it.
        if not is_default and found[:1] in ("'", '"'):
            return found, None
        parsed = parse_scalar(found)
        return parsed, parsed if is_default and isinstance(parsed, str) else found

    def _joined(self, text: str) -> str:
        pieces: list[str] = []
        position = 0
        while (start := text.find("${", position)) >= 0:
            found, _, end = self._reference(text, start)
            pieces += [text[position:start], found]
            position = end
        return "".join([*pieces, text[position:]])

    def _reference(self, value: str, start: int) -> tuple[str, bool, int]:
        """The text that the reference at ``start`` stands for, whether that is its default, and where it ends."""
        end = _end(value, start)
        name = NAME.match(value, start + 2)
        if name is None or value[name.end()] not in ":}":
            raise _Malformed(value[start:end])
        default = value[name.end() + 1 : end - 1] if value[name.end()] == ":" else None
        if default is not None and default[:1] in ("-", "+", "=", "?"):
            raise _Malformed(value[start:end])
        self.names.append(name[0])
        if SECRET.search(name[0]):
            message = f"${{{name[0]}}} looks like a secret, and a config is written to disk"
            hint = f"leave it out: what needs {name[0]} reads it from the environment itself"
            self.problems.append(Problem(message, self.key, self.origin, hint=hint))
            return "", False, end
        if (found := os.environ.get(name[0])) is not None:
            if problem := utf8_problem(found, self.key, f"{self.origin} (${name[0]})"):
                self.problems.append(problem)
            return found, False, end
        if default is None:
            message = f"the environment has no {name[0]}, and there is no default"
            expected = f"export {name[0]}=…, or ${{{name[0]}:default}} here"
            self.problems.append(Problem(message, self.key, self.origin, expected))
            return "", False, end
        _refuse_shells(default)
        return self._joined(default), True, end


def _refuse_shells(text: str) -> None:
    if found := SHELL.search(text):
        raise _Malformed(f"${found[1]}")


def _end(value: str, start: int) -> int:
    """The position behind the closing brace of the reference that begins at ``start``."""
    depth, position = 1, start + 2
    while position < len(value):
        if value[position] in "{}":
            depth += 1 if value[position] == "{" else -1
            if depth == 0:
                return position + 1
        position += 1
    raise _Malformed(value[start:])
