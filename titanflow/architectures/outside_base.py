"""Finds a fine-tuning stage's base outside of its experiment, by what ``base`` says."""

from __future__ import annotations

import os
from pathlib import Path

from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.hf_snapshot import names_repository
from titanflow.architectures.huggingface import (
    CONFIG_FILE,
    check_weights_there,
    describe_repository,
    hugging_face,
    is_hugging_face,
)
from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded
from titanflow.files.published_folder import model_hint
from titanflow.runs.contract import RESULT_FILE


def outside_base(named: str, revision: str | None = None) -> BaseArchitecture | None:
    """The folder of a finished stage, a folder that transformers loads, or ``owner/name`` on the Hub.

    None if it is none of them. An existing folder wins over a repository of the same name.

    Raises:
        ConfigError: there is something that can't be a base.
    """
    if not named.strip():
        return None  # To a path, an empty text is the current folder.
    folder = expanded(named)
    # A name that no file system takes is no folder's.
    if os.path.isdir(folder):  # noqa: PTH112
        base = read_base(folder)
        if base.in_hf:
            check_weights_there(folder)
        return base
    if names_repository(named):
        return hugging_face(describe_repository(named, revision))
    return None


def read_base(folder: Path) -> BaseArchitecture:
    """The base in a folder: a finished stage's model, or else the model that transformers would load.

    Raises:
        ConfigError: it is neither, or can't be fine-tuned.
    """
    if (folder / RESULT_FILE).is_file():
        return BaseArchitecture.finished(folder)
    if is_hugging_face(folder):
        return hugging_face(folder)
    expected = "the folder of a finished stage, or one that transformers loads"
    message, hint = f"{folder} holds neither {RESULT_FILE} nor {CONFIG_FILE}", model_hint(str(folder))
    raise ConfigError(Problem(message, expected=expected, hint=hint))


def trained_as(path: Path) -> BaseArchitecture | None:
    """The model whose weights lie in a folder that transformers loads, a finished stage's, or a ``step-N`` in one.

    None if nothing beside the weights says it.

    Raises:
        ConfigError: what stands there can't be read.
    """
    if is_hugging_face(path):
        return hugging_face(path)
    folder = next((one for one in (path, path.parent.parent) if (one / RESULT_FILE).is_file()), None)
    return BaseArchitecture.finished(folder) if folder else None
