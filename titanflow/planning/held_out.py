"""Refuses an experiment if two sections read the same files in a way that mixes training rows with held-out ones.

Equal content under other names is found when it is prepared: :mod:`titanflow.data.held_out.overlap`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.config.division import written_at
from titanflow.config.experiment import Experiment
from titanflow.config.keys.training import SOURCE_KEYS, Data, HeldOut, is_divided
from titanflow.config.module import Module
from titanflow.data.fingerprints import data_files
from titanflow.planning.data_source import read_sources

ROW_KEYS = (
    "held_out",
    "kind",
    "document",
    "text_column",
    "chat_format",
    "columns",
    "roles",
    "leave_out",
    "revision",
    "limit",
)
"""Beside the files, these keys decide which rows a source has and which part each is in."""


@dataclass
class _Reading:
    """One source of a section; ``trains`` says whether its rows are trained on."""

    module: Module
    key: str
    data: dict[str, Any]
    trains: bool

    @cached_property
    def reads(self) -> frozenset[Any]:
        return frozenset(_reads(self.data))

    @property
    def name(self) -> str:
        return f"{self.module.name}.{self.key}"


def apart_problems(experiment: Experiment) -> list[Problem]:
    """Problems of two sections that read the same: one is judged on the other's training rows, or the parts differ."""
    readings = [
        _Reading(module, key, data, module.trains and key.partition(".")[0] == "data")
        for module, key, data in read_sources(experiment)
    ]
    if all(one.trains for one in readings) and not any(is_divided(one.data) for one in readings):
        return []
    found = [problem for pair in combinations(readings, 2) if (problem := _problem(*pair))]
    # Of each key the first problem counts.
    return list({problem.key: problem for problem in reversed(found)}.values())[::-1]


def _reads(data: dict[str, Any]) -> Iterator[Any]:
    """The files or the dataset; nothing for a built-in source, whose parts are fixed."""
    dataset = data.get("dataset")
    if data.get("path"):
        try:
            yield from (file.resolve() for file in data_files(data))
        except DataError:
            return  # Missing files are refused where the source is planned, with its other mistakes.
    elif dataset:
        folder = expanded(dataset)
        yield str(folder.resolve() if folder.is_dir() else dataset), data.get("config"), data.get("split")


def _problem(first: _Reading, second: _Reading) -> Problem | None:
    """What is wrong with two readings of the same files; None if they may both read them."""
    is_judged = first.trains != second.trains
    if not (is_judged or is_divided(first.data) or is_divided(second.data)):
        return None
    shared = first.reads & second.reads
    if not shared:
        return None
    judged, other = (first, second) if second.trains and not first.trains else (second, first)
    what = min(str(one if isinstance(one, Path) else one[0]) for one in shared)
    if not is_divided(judged.data) and not is_divided(other.data):
        message = f"{other.name} ({_origin(other)}) trains on {what}, too"
        hint = "hold rows out in both, held_out: {dev: 0.01, test: 200}, or name other files"
        return _refused(judged, _named(judged), message, "rows that nothing trains on", hint)
    differing = next((key for key in ROW_KEYS if _value(judged, key) != _value(other, key)), None)
    if differing is None and judged.reads == other.reads:
        return None
    key = differing or _named(judged)
    values = f"{_value(judged, key)!r} here, and {_value(other, key)!r} in {other.name} ({_origin(other)})"
    hint = "name the same data file in both, so that no row is in two parts"
    return _refused(judged, key, f"{what} is divided in two ways: found {values}", "the same in both", hint)


def _refused(reading: _Reading, key: str, message: str, expected: str, hint: str) -> Problem:
    return Problem(message, f"{reading.name}.{key}", written_at(reading.module, reading.key, key), expected, hint)


def _value(reading: _Reading, key: str) -> Any:
    value = getattr(Data(**reading.data), key)
    return {part: size for part, size in asdict(value).items() if size} if isinstance(value, HeldOut) else value


def _named(reading: _Reading) -> str:
    return next(key for key in SOURCE_KEYS if reading.data.get(key))


def _origin(reading: _Reading) -> str:
    return written_at(reading.module, reading.key, _named(reading))
