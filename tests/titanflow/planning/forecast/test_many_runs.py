"""How much of a workspace a plan reads does not grow with the number of its runs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.titanflow.planning.forecast.test_history import write_run
from titanflow.common.errors import ConfigError
from titanflow.nightly.night import Night
from titanflow.nightly.planning import nights
from titanflow.planning.forecast import history
from titanflow.planning.plan import make_plan

OPENED: list[str] | None = None
"""The files opened and folders listed while somebody looks; None if nobody does."""


def see(event: str, args: tuple[Any, ...]) -> None:
    if OPENED is not None and event in ("open", "os.scandir", "os.listdir"):
        OPENED.append(str(args[0]))


# A hook stays as long as the process: this one notes something only while `looked_at` runs.
sys.addaudithook(see)


def looked_at(folder: Path, plan: Callable[[], object]) -> list[str]:
    """The files and folders below ``folder`` that a plan opens."""
    global OPENED
    OPENED = []
    try:
        plan()
        return [path for path in OPENED if path.startswith(str(folder))]
    finally:
        OPENED = None


def test_a_plan_looks_at_as_many_runs_among_a_thousand_as_among_a_hundred(
    tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, counts, asked = tmp_path / "runs", [], []
    modified = history._modified
    monkeypatch.setattr(history, "_modified", lambda path: asked.append(path) or modified(path))
    for number in range(1000):
        write_run(runs, f"run-{number:04}", "another digest")
        if number in (99, 999):
            opened = looked_at(runs, lambda: make_plan("tiny", configs))
            counts.append((len(opened), len(asked)))
            asked.clear()
    assert counts[0] == counts[1]
    assert counts[0] <= (history.NEWEST + 10, history.LOOKED_AT + 10)


def test_a_night_is_planned_from_the_newest_alone(tmp_path: Path, configs: Path) -> None:
    runs, counts = tmp_path / "runs" / "tiny", []
    days = [f"{2020 + number // 336}-{1 + number // 28 % 12:02}-{1 + number % 28:02}" for number in range(1000)]
    for number, day in enumerate(days):
        (runs / day).mkdir(parents=True)
        Night(date=day, run=day).write(runs / day)
        if number in (9, 999):
            counts.append(len(looked_at(runs, lambda: next(nights(runs)))))
    assert counts[0] == counts[1]


def test_nights_come_newest_first_whatever_their_names(tmp_path: Path) -> None:
    named = {"2026-11-20": "2026-11-20", "late": "2026-11-21", "2026-11-22": "2026-11-22", "a": "2026-11-19"}
    for name, day in named.items():
        (tmp_path / name).mkdir()
        Night(date=day, run=name).write(tmp_path / name)
    (tmp_path / "main").mkdir()
    assert [night.run for night, _ in nights(tmp_path)] == ["2026-11-22", "late", "2026-11-20", "a"]
    assert not list(nights(tmp_path / "missing"))


def test_a_day_as_a_name_is_that_night_s(configs: Path) -> None:
    with pytest.raises(ConfigError, match="the run 2026-11-20 would be the night 2026-11-21"):
        make_plan("tiny", configs, "2026-11-20", ["nightly.date=2026-11-21"])
