"""Tries an experiment that isn't written yet: it is loaded and planned from a folder that is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from titanflow.common.errors import ConfigError


@contextmanager
def trial(name: str, text: str) -> Iterator[Path]:
    """The file of an experiment, under the name that it will have; errors in the block name it without the folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            yield path
        except ConfigError as error:
            shown = [replace(one, origin=one.origin.replace(f"{folder}/", "")) for one in error.problems]
            raise type(error)(shown) from error
