"""Evaluation items, below ``${data}`` in a task's YAML: built-in ones, the user's own files, or held-out rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.config.keys.training import Data
from titanflow.data.files.file_rows import rows_of, texts_of
from titanflow.data.files.json_rows import JsonFault, parsed_json
from titanflow.data.files.local_files import KEY, Ending, local_files
from titanflow.data.stdlib import evals
from titanflow.runs.contract import DATASET_FILE

ITEMS_FILE = "items.jsonl"
"""The file of held-out rows; a task's YAML names it: ``data_files: {test: "${data}/items.jsonl"}``."""


def item_names(data: Mapping[str, Any]) -> list[str]:
    """The files that a data config's prepared folder holds, by their path in it.

    Raises:
        DataError: a file isn't there, or two have the same name.
    """
    if data.get("kind", "evals") != "evals":
        return [ITEMS_FILE]
    return list(named_files(data["path"]) if data.get("path") else evals.item_files())


def named_files(path: str | list[str]) -> dict[str, Path]:
    """The user's own files by their names in the prepared folder; files of a folder have their path in it.

    Raises:
        DataError: a file isn't there, or two have the same name.
    """
    entries = map(expanded, [path] if isinstance(path, str) else path)
    folders = [folder for folder in entries if folder.is_dir()]
    found: dict[str, Path] = {}
    for file in local_files(path).files:
        folder = next((one for one in folders if file.is_relative_to(one)), file.parent)
        name = file.relative_to(folder).as_posix()
        if name == DATASET_FILE:
            message, hint = f"{file} has the name of the file that says what is prepared", "call it otherwise"
            raise DataError(Problem(message, KEY, expected="any other name", hint=hint))
        if name in found:
            message, hint = f"{found[name]} and {file} would both be {name}", "name the folder above both"
            raise DataError(Problem(message, KEY, expected="each name once", hint=hint))
        found[name] = file
    return found


def check_items(data: Data) -> None:
    """Reads all of the user's own items, so that a malformed row is found before a model is asked."""
    from titanflow.data.files.sources import SourceFile

    for file in named_files(data.path).values() if data.path else ():
        if Ending.of(file).format == "text":
            for _ in texts_of(file, "line"):
                pass
        else:
            found = rows_of(file)
            for place, row in found.rows:
                _check_row(SourceFile(str(file), found.unit).origin(place), row)


def _check_row(origin: str, row: Any) -> None:
    try:
        item = parsed_json(row) if isinstance(row, str) else row
    except JsonFault as fault:
        raise DataError(Problem(str(fault), KEY, origin)) from None
    if not isinstance(item, dict):
        raise DataError(Problem(f"found {row!r:.60}", KEY, origin, "an item: columns and their values"))


def write_items(data: Data, folder: Path) -> dict[str, Any]:
    """Writes the items into ``folder`` and returns the entries for ``dataset.json``."""
    if not data.path:
        return evals.write_items(folder, data.part or "test")
    files = named_files(data.path)
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return {"items": list(files)}
