"""Finds the columns that a task's templates need from its items."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem
from titanflow.evals.task_yaml import SingleTask, as_list

if TYPE_CHECKING:
    from jinja2 import nodes


NAMED = ("doc_to_text", "doc_to_target", "doc_to_choice")
"""Keys whose value may be a column's name as well."""
TEMPLATES = (*NAMED, "description", "gen_prefix")
_ASKS_WHETHER = ("defined", "undefined", "default", "d")
"""Tests and filters that accept an undefined name."""


def syntax_problems(task: SingleTask) -> Iterator[Problem]:
    from jinja2 import TemplateSyntaxError

    for key, text in templates(task):
        try:
            _parsed(text)
        except TemplateSyntaxError as error:
            yield task.yaml.problem(key, f"no Jinja template: {error.message}", "text with {{column}} in it")


def templates(task: SingleTask) -> Iterator[tuple[str, str]]:
    """Each template of a task, with its key."""
    of_examples = task.config.get("fewshot_config")
    values = [(key, text) for key in TEMPLATES for text in as_list(task.config.get(key))]
    values += [("fewshot_config", text) for text in of_examples.values()] if isinstance(of_examples, dict) else []
    yield from ((key, text) for key, text in values if isinstance(text, str) and "{" in text)


@cache
def _environment() -> Any:
    from jinja2 import Environment

    environment = Environment()
    # A filter of lm-eval's own.
    environment.filters["regex_replace"] = str
    return environment


def _parsed(text: str) -> nodes.Template:
    tree: nodes.Template = _environment().parse(text)
    return tree


def column_names(text: str) -> set[str]:
    """The columns that a template requires; none if the template has a syntax error."""
    from jinja2 import TemplateSyntaxError, meta, nodes

    try:
        tree = _parsed(text)
    except TemplateSyntaxError:
        return set()
    asking = [one for one in tree.find_all((nodes.Test, nodes.Filter)) if one.name in _ASKS_WHETHER]
    asked = {name.name for one in asking for name in one.find_all(nodes.Name)}
    return set(meta.find_undeclared_variables(tree)) - asked - set(_environment().globals)
