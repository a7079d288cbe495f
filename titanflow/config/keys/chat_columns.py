"""The columns and roles of each chat format, and a check of what a config declares about them."""

from __future__ import annotations

from collections.abc import Mapping

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Data

CALL = "function_call"
"""A role whose content is the JSON of the functions that the assistant calls."""
_MESSAGE = {"role": "role", "content": "content"}
_ROW = {"tools": "tools", "system": "system", "train": "train"}

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
"""The columns that a row must have to be a conversation."""
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "messages": {"messages": "messages", **_MESSAGE, **_ROW},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value", **_ROW},
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output", "history": "history", **_ROW},
    "prompt_completion": {"prompt": "prompt", "completion": "completion", **_MESSAGE, **_ROW},
}
"""Each layout's names for its columns and for the keys of a message, unless ``data.columns`` renames them."""


PAIRS: Mapping[str, Mapping[str, str]] = {
    "messages": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", **_MESSAGE, **_ROW},
    "sharegpt": {
        **{"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"},
        **{"role": "from", "content": "value", **_ROW},
    },
}
"""The same of each layout of pairs; the prompt may be missing where both sides begin with it."""
SIDES = ("chosen", "rejected")
"""The columns that a row must have to be a pair."""


def known_columns(kind: str) -> Mapping[str, Mapping[str, str]]:
    """The layouts of conversations or pairs, with their columns."""
    return PAIRS if kind == "pairs" else COLUMNS


def required_columns(data: Data) -> tuple[str, ...]:
    """The columns that a row must have to be what the section reads."""
    return SIDES if data.kind == "pairs" else REQUIRED[data.chat_format]


def check_declaration(data: Data, key: str = "data") -> None:
    """Refuses columns that the layout lacks, roles that nothing here renders, and leaving out a needed column.

    Raises:
        DataError: with all such mistakes.
    """
    layouts, roles = known_columns(data.kind), ("system", "user", "assistant", "tool", CALL)
    if data.chat_format not in layouts:
        found = f"found {data.chat_format!r}, and pairs have no such layout"
        raise DataError(Problem(found, f"{key}.chat_format", expected=" or ".join(layouts)))
    known = layouts[data.chat_format]
    problems = [
        Problem(f"{data.chat_format} has no {name!r}", f"{key}.columns", expected=", ".join(known))
        for name in data.columns
        if name not in known
    ]
    problems += [
        Problem(f"{name!r} is given the role {role!r}", f"{key}.roles", expected=", ".join(roles))
        for name, role in data.roles.items()
        if role not in roles
    ]
    columns = {**known, **data.columns}
    needed = [columns[name] for name in (*required_columns(data), "role", "content") if name in columns]
    what, hint = "pairs" if data.kind == "pairs" else "conversations", f"take it out of {key}.leave_out"
    problems += [
        Problem(f"{what} are read from {name!r}", f"{key}.leave_out", hint=hint)
        for name in data.leave_out
        if name in needed
    ]
    if problems:
        raise DataError(problems)
