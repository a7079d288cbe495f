"""Tries an experiment that isn't written yet: it is loaded and planned from a folder that is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan


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


def tried_plan(name: str, text: str) -> Plan:
    """The plan of an experiment that isn't written yet.

    Raises:
        ConfigError: it can't be used.
        DataError: its data can't.
    """
    with trial(name, text) as path:
        plan = make_plan(str(path), runs_here=False)
        warnings = [line.replace(f"{path.parent}/", "") for line in plan.config.warnings]
    return replace(plan, config=replace(plan.config, warnings=warnings))
