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


def check_declaration(data: Data, key: str = "data") -> None:
    """Refuses columns that the layout lacks, roles that nothing here renders, and leaving out a needed column.

    Raises:
        DataError: with all such mistakes.
    """
    known, roles = COLUMNS[data.chat_format], ("system", "user", "assistant", "tool", CALL)
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
    needed = [columns[name] for name in (*REQUIRED[data.chat_format], "role", "content") if name in columns]
    hint = f"take it out of {key}.leave_out"
    problems += [
        Problem(f"conversations are read from {name!r}", f"{key}.leave_out", hint=hint)
        for name in data.leave_out
        if name in needed
    ]
    if problems:
        raise DataError(problems)
