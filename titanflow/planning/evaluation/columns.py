"""Compares the names in a task's templates with the columns of its items."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from titanflow.common.errors import DataError, Problem, did_you_mean
from titanflow.evals.task_yaml import SingleTask
from titanflow.evals.templates import NAMED, column_names, templates

MAKES_ITEMS = ("process_docs", "custom_dataset", "use_prompt", "class")
"""With one of these keys, code makes a task's items or its questions."""

ALIKE = 0.75
"""From this similarity on, a bare word is taken for a misspelt column; lm-eval would ask with the word itself."""


def column_problems(task: SingleTask, files: Collection[Path]) -> Iterator[Problem]:
    """Names in templates that are no column of the items in ``files``: lm-eval ends at the first one."""
    if not files or any(task.config.get(key) for key in MAKES_ITEMS):
        return
    wanted = {key: names for key, text in templates(task) if (names := column_names(text))}
    bare = {key: str(text) for key in NAMED if isinstance(text := task.config.get(key), str) and "{" not in text}
    if not (columns := _columns(files, set().union(*wanted.values(), bare.values()))):
        return
    where, expected = ", ".join(sorted({file.name for file in files})), f"one of {', '.join(columns)}"
    for key, names in wanted.items():
        for name in sorted(names - set(columns)):
            hint = did_you_mean(name, columns)
            yield task.yaml.problem(key, f"no item has {name!r}: {where}", expected, hint)
    for key, text in bare.items():
        near = difflib.get_close_matches(text, columns, n=1, cutoff=ALIKE)
        if text not in columns and (near if key != "doc_to_choice" else not _is_list(text)):
            hint = f"did you mean {near[0]}? For the word itself: \"{{{{'{text}'}}}}\"" if near else ""
            yield task.yaml.problem(key, f"no item has {text!r}: {where}", expected, hint)


def _is_list(text: str) -> bool:
    """Whether a text is a list as Python writes it, which lm-eval reads as choices."""
    with suppress(ValueError, SyntaxError, RecursionError):
        return isinstance(ast.literal_eval(text), list)
    return False


def _columns(files: Collection[Path], wanted: set[str]) -> list[str]:
    """The columns of the files' rows, read until all ``wanted`` ones are found; none of files that can't be read."""
    from titanflow.data.files.file_rows import rows_of

    found: dict[str, None] = {}
    with suppress(DataError, ValueError, AttributeError):
        for file in files:
            for _, row in rows_of(file).rows:
                found |= dict.fromkeys(json.loads(row) if isinstance(row, str) else row)
                if wanted <= found.keys():
                    return list(found)
        return list(found)
    return []
