"""Which tasks are asked through the chat template, by an evaluate module's ``chat``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Setting = bool | str | list[str]
"""``auto`` follows each task's ``metadata.chat``; a list names tasks, or groups that are asked for."""
HINT = "list the group's tasks one by one in `tasks`, or set chat to true or false"


def asked_as_chat(name: str, tasks: Mapping[str, Any], setting: Setting) -> dict[str, bool]:
    """Whether each task is asked through the chat template.

    ``name`` is the task or group that was asked for, ``tasks`` has the ``metadata`` of each of its tasks.
    """
    if isinstance(setting, list):
        return {task: name in setting or task in setting for task in tasks}
    if setting == "auto":
        return {task: isinstance(metadata, Mapping) and bool(metadata.get("chat")) for task, metadata in tasks.items()}
    return dict.fromkeys(tasks, bool(setting))


def mixed(name: str, wanted: Mapping[str, bool]) -> str:
    """Why a group's tasks can't be asked together: some use the chat template, others don't. Empty if they agree."""
    if len(set(wanted.values())) < 2:
        return ""
    of_each = ", ".join(f"{task} {'with' if chat else 'without'}" for task, chat in list(wanted.items())[:6])
    return f"{name} mixes tasks with and without the chat template: {of_each}"
