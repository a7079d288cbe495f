"""Which columns and roles a chat format has, and declarations of them that contradict each other."""

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
"""The columns without which a row is no conversation."""


COLUMNS: Mapping[str, Mapping[str, str]] = {
    "messages": {"messages": "messages", **_MESSAGE, **_ROW},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value", **_ROW},
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output", "history": "history", **_ROW},
    "prompt_completion": {"prompt": "prompt", "completion": "completion", **_MESSAGE, **_ROW},
}
"""What each layout calls its columns, and the keys of a message, unless ``data.columns`` says otherwise."""


def check_declaration(data: Data, key: str = "data") -> None:
    """Refuses columns that the layout doesn't have, roles that nothing here renders, and to leave out what is read.

    Raises:
        DataError: any of the three, all of them together.
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
    problems += [
        Problem(
            f"{name!r} is what a conversation is read from", f"{key}.leave_out", hint=f"take it out of {key}.leave_out"
        )
        for name in data.leave_out
        if name in needed
    ]
    if problems:
        raise DataError(problems)
