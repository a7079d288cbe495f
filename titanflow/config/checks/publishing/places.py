"""Refuses publications of one experiment that would write into the same place."""

from __future__ import annotations

from collections.abc import Mapping

from titanflow.common.errors import Problem
from titanflow.common.files import expanded
from titanflow.config.module import Module
from titanflow.config.stages import modules_of


def check_places(modules: Mapping[str, Module]) -> list[Problem]:
    """Publications to the repository of another one, or to its folder or one below or above that."""
    publications = modules_of("publish", modules)
    pairs = ((one, other) for place, one in enumerate(publications) for other in publications[:place])
    return [problem for one, other in pairs for problem in _shared(one, other)]


def _shared(one: Module, other: Module) -> list[Problem]:
    expected = "a place of its own: the later model would replace the other"
    targets = {one.config["target"], other.config["target"]}
    if targets == {"hub"}:
        mine, theirs = (module.config["repo_id"] or "" for module in (one, other))
        # The Hub has one repository for all spellings of a name.
        if mine and mine.lower() == theirs.lower():
            return [one.problem("repo_id", f"{other.name} publishes to {theirs}, too", expected)]
    elif targets == {"folder"} and one.config["folder"] and other.config["folder"]:
        here, there = (expanded(module.config["folder"]).resolve() for module in (one, other))
        if here.is_relative_to(there) or there.is_relative_to(here):
            return [one.problem("folder", f"{other.name} publishes to {there}, too", expected)]
    return []
