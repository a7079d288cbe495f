"""Errors that a person can act on: where, what was found, what to do next."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
"""What a system says of a place that a person named and can change; a traceback would only hide it."""


class TitanflowError(Exception):
    """Base of all errors that the user can mend, printed without a traceback; ``exit_code`` is 2 for bad input, else
    1."""

    exit_code = 2

    def __repr__(self) -> str:
        # Prefect logs it beside the message, which may have many lines.
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]!r})"


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands (``file:line``), its key, what was found and what would be right."""

    message: str
    key: str = ""
    origin: str = ""
    expected: str = ""
    hint: str = ""
    stages: tuple[str, ...] = field(default=(), kw_only=True)
    """The stages that share the value, if several do; the key is without their names then."""

    @classmethod
    def from_json(cls, text: str, origin: str) -> Problem:
        """One that another process told as JSON of its fields, with the place that this process knows."""
        values = json.loads(text)
        return cls(**values | {"origin": origin, "stages": tuple(values["stages"])})

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.origin, ", ".join(self.stages), self.key) if part)
        lines = [f"{where}: {self.message}" if where else self.message]
        if self.expected:
            lines.append(f"    expected: {self.expected}")
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


def told_once(problems: Iterable[Problem]) -> list[Problem]:
    """The mistakes, each told once: a value that several stages share is one mistake, with all their names.

    The stages' own keys differ in their first name alone. Without it, the key may be the experiment's, too.
    """
    found = dict.fromkeys(problems)
    shared: dict[Problem, dict[str, None]] = {}
    for one in found:
        if (common := _without_stage(one)) != one:
            shared.setdefault(common, {})[one.key.partition(".")[0]] = None
    return list(dict.fromkeys(_with_stages(one, shared, found) for one in found))


def _with_stages(one: Problem, shared: Mapping[Problem, Iterable[str]], found: Container[Problem]) -> Problem:
    for common in (one, _without_stage(one)):
        stages = tuple(shared.get(common, ()))
        if len(stages) > 1 or (stages and common in found):
            return replace(common, stages=stages)
    return one


def _without_stage(one: Problem) -> Problem:
    stage, _, key = one.key.partition(".")
    if not one.origin or not key:
        return one
    texts = {name: getattr(one, name).replace(f"{stage}.", "") for name in ("message", "expected", "hint")}
    return replace(one, key=key, **texts)


class ConfigError(TitanflowError):
    """The config can't be used; has every problem found, not just the first; ``more`` counts those not shown."""

    def __init__(self, problems: Sequence[Problem] | Problem | str, more: int = 0) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems = told_once(problems)
        count = len(self.problems) + more
        head = "" if count == 1 else f"{count} problems:\n"
        tail = f"\n… and {more} more of this kind" if more else ""
        super().__init__(head + "\n".join(str(problem) for problem in self.problems) + tail)


class DataError(ConfigError):
    """Training or evaluation data can't be used: missing, empty, or a row that breaks its format."""


class StageFailed(TitanflowError):
    """A stage started and did not finish; the message is the failing rank's own."""

    exit_code = 1


class StageLost(StageFailed):
    """A stage ended through no fault of its inputs (killed, a hung rank, a broken connection): a retry may succeed.

    Only these errors are retried automatically (``retries.lost``), from the newest checkpoint.
    """


class StageStopped(StageFailed):
    """A stage saved and left because it was told to (SIGTERM)."""


class StageCutShort(StageLost):
    """A cluster ended a stage's job through no fault of the stage: it goes on in another job as long as it gets on.

    ``remedy`` says what helps if it doesn't get on.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class NoAnswerError(StageLost):
    """A cluster's scheduler doesn't answer now: it is down, restarts, or is too busy. A job goes on meanwhile."""


class HubError(StageFailed):
    """The Hub refused or could not be reached; says how it answered and what to do."""


class HubUnreachable(HubError, StageLost):
    """The Hub gave no answer, or was too busy for one, in all of several attempts."""


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """The known name that is nearest, as a hint; empty where none is near."""
    lower = {one.lower(): one for one in reversed(list(known))}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1)
    return f"did you mean {lower[near[0]]}?" if near else ""


@contextlib.contextmanager
def refused_places() -> Iterator[None]:
    """Turns the system's refusal of a file or folder, and the loss of the current one, into a message for a person."""
    try:
        yield
    except OSError as error:
        if error.filename and error.errno in REFUSED:
            expected = "a place that can be read and written"
            raise ConfigError(Problem(f"{error.filename}: {error.strerror}", expected=expected)) from error
        try:
            Path.cwd()
        except FileNotFoundError:
            message, expected = "the folder that this is run in is gone", "a folder that is there: cd to it"
            raise ConfigError(Problem(message, expected=expected)) from error
        raise
