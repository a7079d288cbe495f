"""Which tasks are asked through the chat template: what an evaluate module's ``chat`` says of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Setting = bool | str | list[str]
"""``auto`` does what each task's ``metadata.chat`` says; a list has the names of tasks, or of groups that are asked."""
HINT = "list the group's tasks one by one in `tasks`, or set chat to true or false"


def asked_as_chat(name: str, tasks: Mapping[str, Any], setting: Setting) -> dict[str, bool]:
    """Of each task whether it is asked through the chat template.

    Args:
        name: what was asked for: a task, or a group of tasks.
        tasks: the ``metadata`` of each task behind it.
        setting: the module's ``chat``.
    """
    if isinstance(setting, list):
        return {task: name in setting or task in setting for task in tasks}
    if setting == "auto":
        return {task: isinstance(metadata, Mapping) and bool(metadata.get("chat")) for task, metadata in tasks.items()}
    return dict.fromkeys(tasks, bool(setting))


def mixed(name: str, wanted: Mapping[str, bool]) -> str:
    """What speaks against asking a group's tasks together, all through the template or none; empty if nothing does."""
    if len(set(wanted.values())) < 2:
        return ""
    of_each = ", ".join(f"{task} {'with' if chat else 'without'}" for task, chat in list(wanted.items())[:6])
    return f"{name} mixes tasks with and without the chat template: {of_each}"
