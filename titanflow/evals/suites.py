"""Suites: groups of lm-eval's tasks under one name, with the number of examples that published figures are made with.

Each is a group in lm-eval's own form, in ``suites/``, and says in its file where its settings come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from titanflow.common.errors import Problem
from titanflow.evals.library import Library, index
from titanflow.evals.task_yaml import read_yaml
from titanflow.files.yaml_source import display

FOLDER = Path(__file__).with_name("suites")


@cache
def suites() -> Library:
    """The suites by name."""
    return index(FOLDER)


def described_suites(names: Iterable[str]) -> dict[str, tuple[list[str], str]]:
    """Of the names that are suites the tasks with their number of examples, and the file that says so."""
    found = {}
    for name in names:
        if name in suites():
            path = FOLDER / (suites().file(name) or "")
            members: list[Mapping[str, Any]] = read_yaml(path)["task"]
            found[name] = ([f"{one['task']}, {one['num_fewshot']}-shot" for one in members], display(path))
    return found


def suite_problems(config: Mapping[str, Any], name: str, origins: Mapping[str, str]) -> list[Problem]:
    """Settings of an evaluate module that would make other figures than a suite's name promises."""
    asked = [one for one in config["tasks"] if one in suites()]
    if not asked or config["num_fewshot"] is None:
        return []
    message = f"found {config['num_fewshot']}, and {', '.join(asked)} says how many examples each of its tasks has"
    hint = "num_fewshot in a task's own file is that task's alone; or name the suite's tasks one by one"
    return [Problem(message, f"{name}.num_fewshot", origins.get("num_fewshot", ""), "no number of its own", hint)]


def suite_warnings(config: Mapping[str, Any], name: str) -> list[str]:
    """Settings for all tasks that a suite's published figures weren't made with, and that are right for other tasks."""
    asked = [one for one in config["tasks"] if one in suites()]
    return [
        f"{name}.{key} goes to {', '.join(asked)}, too: the published figures were made without it"
        for key in ("system_instruction", "gen_kwargs")
        if asked and config[key]
    ]
