"""Suites: groups of lm-eval's tasks under one name, with the numbers of examples that published figures use.

Each is a group file in lm-eval's own format, in ``suites/``, and says where its settings come from.
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
    return index(FOLDER)


def described_suites(names: Iterable[str]) -> dict[str, tuple[list[str], str]]:
    """For each name of a suite, its tasks with their number of examples, and its file."""
    found = {}
    for name in names:
        if name in suites():
            path = FOLDER / (suites().file(name) or "")
            members: list[Mapping[str, Any]] = read_yaml(path)["task"]
            found[name] = ([f"{one['task']}, {one['num_fewshot']}-shot" for one in members], display(path))
    return found


def suite_problems(config: Mapping[str, Any], name: str, origins: Mapping[str, str]) -> list[Problem]:
    """Settings of an evaluate module that contradict a suite's name."""
    asked = [one for one in config["tasks"] if one in suites()]
    if not asked or config["num_fewshot"] is None:
        return []
    message = f"found {config['num_fewshot']}, and {', '.join(asked)} says how many examples each of its tasks has"
    hint = "num_fewshot in a task's own file is that task's alone; or name the suite's tasks one by one"
    return [Problem(message, f"{name}.num_fewshot", origins.get("num_fewshot", ""), "no number of its own", hint)]


def suite_warnings(config: Mapping[str, Any], name: str) -> list[str]:
    """Settings for all tasks that differ from a suite's published figures, but may be right for other tasks."""
    asked = [one for one in config["tasks"] if one in suites()]
    return [
        f"{name}.{key} goes to {', '.join(asked)}, too: the published figures were made without it"
        for key in ("system_instruction", "gen_kwargs")
        if asked and config[key]
    ]
