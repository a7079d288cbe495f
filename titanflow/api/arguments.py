"""What a caller in Python gives, as the command line would take it: both then plan and run the same."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan

ExperimentLike = str | os.PathLike[str] | Mapping[str, Any]
"""An experiment's name, its file, or what such a file says, as a mapping."""
PathLike = str | os.PathLike[str]
LONGEST_WORD = 1 << 17
"""Bytes from which on Linux refuses a word of a command (MAX_ARG_STRLEN, which counts the byte behind it, too)."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of ``titanflow plan`` and ``titanflow run``; ``settings`` are ``--set``'s."""

    experiment: str
    configs: str | None
    run: str | None
    settings: list[str]

    @classmethod
    def of(
        cls,
        experiment: ExperimentLike,
        configs: PathLike | None,
        run: str | None,
        overrides: Mapping[str, object] | None,
        **own: object,
    ) -> Arguments:
        """As given to :func:`titanflow.plan`; ``own`` are the experiment's own keys that have an argument of their own.

        Raises:
            ConfigError: a value that no config can hold.
        """
        folders = {"configs": configs, "workspace": own.get("workspace")}
        for key, value in folders.items():
            check_kind(key, value, str | os.PathLike | None, "a folder")
        check_kind("run", run, str | None, "a name")
        check_kind("overrides", overrides, Mapping | None, 'a mapping: {"pretrain.training.steps": 100}')
        given = {**(overrides or {}), **{key: value for key, value in own.items() if value is not None}}
        return cls(
            _experiment(experiment), None if configs is None else os.fspath(configs), run, list(_settings(given))
        )

    def plan(self, runs_here: bool) -> Plan:
        """The plan; with ``runs_here`` False a stage that this machine can't run is a warning."""
        return make_plan(self.experiment, self.configs, self.run, self.settings, runs_here)

    def words(self) -> list[str]:
        """The same behind ``titanflow run``.

        Raises:
            ConfigError: the system takes no word of such a length.
        """
        if (size := len(self.experiment.encode())) >= LONGEST_WORD:
            expected = f"less than {LONGEST_WORD:,}; an experiment of any size may be a file"
            raise ConfigError(Problem(f"found a mapping of {size:,} bytes", "experiment", expected=expected))
        options = [("--configs", self.configs), ("--run", self.run), *(("--set", one) for one in self.settings)]
        # With a sign of equality a value may begin with a dash.
        return [*(f"{name}={value}" for name, value in options if value is not None), "--", self.experiment]


def check_kind(key: str, given: object, kinds: Any, expected: str) -> None:
    """Refuses an argument of another kind, or an empty text: deeper down Python would fail in words of its own.

    Raises:
        ConfigError: it is one.
    """
    if not isinstance(given, kinds) or given == "":
        raise ConfigError(Problem(f"found {given!r} ({type(given).__name__})", key, expected=expected))


def _experiment(given: Any) -> str:
    if isinstance(given, Mapping):
        return _json(given, "")
    check_kind("experiment", given, str | os.PathLike, "a name, a file, or a mapping as such a file has it")
    return os.fspath(given)


def _settings(given: Mapping[str, object]) -> Iterator[str]:
    for key, value in given.items():
        if not isinstance(key, str) or not key or "=" in key:
            raise ConfigError(Problem(f"found {key!r}", "overrides", expected="a dotted key: pretrain.training.steps"))
        # As JSON, which is YAML, so that a text stays one even where it looks like a number.
        yield f"{key}={_json(value, key)}"


def _json(value: object, key: str) -> str:
    if problems := list(_problems(value, key)):
        raise ConfigError(problems)
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _problems(value: object, key: str) -> Iterable[Problem]:
    """What a config has no form for, wherever it stands; JSON would write some of it as something else."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                yield Problem(f"found the key {name!r} ({type(name).__name__})", key, expected="a text")
            yield from _problems(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _problems(item, f"{key}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(f"found {value}", key, expected="a finite number")
    elif value is not None and not isinstance(value, str | bool | Integral | float | os.PathLike):
        expected = "a text, a number, True, False, None, a path, a list or a mapping of these"
        yield Problem(f"found {value!r} ({type(value).__name__})", key, expected=expected)
