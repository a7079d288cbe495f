"""What a task's templates ask of its items, held against the columns that the items have."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.errors import DataError, Problem
from titanflow.evals.asked_tasks import SingleTask
from titanflow.evals.task_yaml import as_list

if TYPE_CHECKING:
    from jinja2 import nodes

NAMED = ("doc_to_text", "doc_to_target", "doc_to_choice")
"""Keys whose value may be a column's name as well."""
TEMPLATES = (*NAMED, "description", "gen_prefix")
MAKES_ITEMS = ("process_docs", "custom_dataset", "use_prompt", "class")
"""Keys of a task whose items, or what is asked of them, are made by code."""
ALIKE = 0.75
"""How like a column's name a word is that was meant as one; lm-eval shows it as a word."""
_ASKS_WHETHER = ("defined", "undefined", "default", "d")
"""Tests and filters that take a name which isn't there."""


def syntax_problems(task: SingleTask) -> Iterator[Problem]:
    """Templates that can't be read."""
    from jinja2 import TemplateSyntaxError

    for key, text in _templates(task):
        try:
            _parsed(text)
        except TemplateSyntaxError as error:
            yield task.yaml.problem(key, f"no Jinja template: {error.message}", "text with {{column}} in it")


def column_problems(task: SingleTask, files: Collection[Path]) -> Iterator[Problem]:
    """Names in templates that no item of ``files`` has as a column: lm-eval ends at the first one."""
    if not files or any(task.config.get(key) for key in MAKES_ITEMS):
        return
    wanted = {key: names for key, text in _templates(task) if (names := _names(text))}
    bare = {key: str(text) for key in NAMED if isinstance(text := task.config.get(key), str) and "{" not in text}
    columns = _columns(files, set().union(*wanted.values(), bare.values()))
    where, expected = ", ".join(sorted({file.name for file in files})), f"one of {', '.join(columns)}"
    for key, names in wanted.items() if columns else ():
        for name in sorted(names - set(columns)):
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]}?" if near else ""
            yield task.yaml.problem(key, f"no item has {name!r}: {where}", expected, hint)
    for key, text in bare.items() if columns else ():
        near = difflib.get_close_matches(text, columns, n=1, cutoff=ALIKE)
        if text not in columns and (near if key != "doc_to_choice" else not _is_list(text)):
            hint = f"did you mean {near[0]}? For the word itself: \"{{{{'{text}'}}}}\"" if near else ""
            yield task.yaml.problem(key, f"no item has {text!r}: {where}", expected, hint)


def _templates(task: SingleTask) -> Iterator[tuple[str, str]]:
    of_examples = task.config.get("fewshot_config")
    for key in TEMPLATES:
        yield from ((key, text) for text in as_list(task.config.get(key)) if isinstance(text, str) and "{" in text)
    for text in of_examples.values() if isinstance(of_examples, dict) else ():
        if isinstance(text, str) and "{" in text:
            yield "fewshot_config", text


def _is_list(text: str) -> bool:
    """Whether a text is a list as Python writes it, which lm-eval reads as choices."""
    with suppress(ValueError, SyntaxError, RecursionError):
        return isinstance(ast.literal_eval(text), list)
    return False


@cache
def _environment() -> Any:
    from jinja2 import Environment

    environment = Environment()
    # lm-eval's own.
    environment.filters["regex_replace"] = str
    return environment


def _parsed(text: str) -> nodes.Template:
    tree: nodes.Template = _environment().parse(text)
    return tree


def _names(text: str) -> set[str]:
    """The columns that a template can't do without; none of one that can't be read."""
    from jinja2 import TemplateSyntaxError, meta, nodes

    try:
        tree = _parsed(text)
    except TemplateSyntaxError:
        return set()
    asking = [one for one in tree.find_all((nodes.Test, nodes.Filter)) if one.name in _ASKS_WHETHER]
    asked = {name.name for one in asking for name in one.find_all(nodes.Name)}
    return set(meta.find_undeclared_variables(tree)) - asked - set(_environment().globals)


def _columns(files: Collection[Path], wanted: set[str]) -> list[str]:
    """The columns of the files' rows, in order, read until all that are ``wanted`` are found; none of other files."""
    from titanflow.data.file_rows import rows_of

    found: dict[str, None] = {}
    with suppress(DataError, ValueError, AttributeError):
        for file in files:
            for _, row in rows_of(file).rows:
                found |= dict.fromkeys(json.loads(row) if isinstance(row, str) else row)
                if wanted <= found.keys():
                    return list(found)
        return list(found)
    return []
