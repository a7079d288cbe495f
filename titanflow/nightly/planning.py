"""A night: a run that belongs to a day, and may continue from an earlier night's weights.

A run with ``night.json`` in its folder is a night. The file is written when the night begins, so that whoever plans the
run again, a retry or a person, gets the same day and the same parent.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.batch import global_batch_size
from titanflow.config.experiment import Experiment
from titanflow.config.overrides import Setting
from titanflow.nightly.night import Night, Parent
from titanflow.runs.checkpoints import METADATA
from titanflow.runs.manifest import Manifest
from titanflow.runs.training import Training

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def as_night(
    config: Experiment, run: str | None, reload: Callable[[Iterable[Setting]], Experiment]
) -> tuple[Experiment, Night | None]:
    """The experiment as a night runs it, with the weights and rows that it continues from; and the night.

    A run is a night if its folder says so, or if ``nightly.date`` is set. Any other experiment is returned unchanged.
    ``reload`` loads the experiment again with settings below those of the caller.

    Raises:
        ConfigError: the date isn't one, or there is no pretraining to continue.
    """
    settings = config.spec.nightly
    day = settings.date
    if day is not None and not is_date(day):
        origin = config.origins.get("nightly.date", "")
        raise ConfigError(Problem(f"found {day!r}", "nightly.date", origin, "a day, as 2026-11-21"))
    name = run or day
    if name is None:
        return config, None
    if day is not None and is_date(name) and name != day:
        found, hint = f"the run {name} would be the night {day}", "leave --run out: a night's name is its day"
        raise ConfigError(Problem(found, "--run", config.origins.get("nightly.date", ""), day, hint))
    runs = config.workspace.resolve() / config.exp_name
    night = Night.read(runs / name)
    if night is None and day is None:
        return config, None
    # A skipped night has chosen no parent yet.
    if night is None or not night.began:
        day = day or (night.date if night is not None else "")
        parent = newest_parent(runs, day, config) if settings.start == "continue" else None
        night = Night(date=day, run=name, start=settings.start, parent=parent)
    return reload(_continued(night, config)) if night.parent is not None else config, night


def is_date(text: str) -> bool:
    try:
        return bool(DATE.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def nights(runs: Path) -> Iterator[tuple[Night, Path]]:
    """The nights of an experiment with their folders, newest first; ``runs`` is the experiment's folder."""
    names = [path.name for path in runs.iterdir()] if runs.is_dir() else []
    # A night's name is its day, as a rule: whoever asks for the newest opens no file of those before it.
    dated = _nights(runs, sorted(filter(is_date, names), reverse=True))
    named = _nights(runs, (name for name in names if not is_date(name)))
    yield from heapq.merge(dated, sorted(named, key=_order, reverse=True), key=_order, reverse=True)


def _nights(runs: Path, names: Iterable[str]) -> Iterator[tuple[Night, Path]]:
    found = ((Night.read(runs / name), runs / name) for name in names)
    # A copied or renamed folder is no night of its own.
    yield from ((night, folder) for night, folder in found if night is not None and night.run == folder.name)


def _order(one: tuple[Night, Path]) -> tuple[str, str]:
    return one[0].date, one[0].run


def newest_parent(runs: Path, day: str, config: Experiment) -> Parent | None:
    """The newest night before ``day`` whose pretraining finished, whatever became of it afterwards.

    A night that the gate held back counts: it wasn't surely better than the published model, and more training is how
    the next one may become so. A night whose training failed has no result to continue from.
    """
    if not continued(config):
        origin = config.origins.get("nightly.start", "")
        hint = "a night that only fine-tunes starts from its base; set nightly.start: anew"
        raise ConfigError(Problem("there is no pretraining to continue", "nightly.start", origin, hint=hint))
    earlier = (folder for night, folder in nights(runs) if night.date < day)
    return next((parent for folder in earlier if (parent := as_parent(folder))), None)


def continued(config: Experiment) -> str:
    """The name of the pretraining that goes on from night to night: the first, which has no base; empty without one."""
    found = (module for module in config.modules.values() if module.kind == "pretrain" and module.base is None)
    return next((module.name for module in found), "")


def as_parent(folder: Path) -> Parent | None:
    """A night's finished pretraining that has no base; None if there is none, or its checkpoint is gone."""
    manifest = Manifest.open(folder)
    finished = (name for name in manifest.of_kind("pretrain") if manifest.stages[name].finished)
    found = (training for name in finished if (training := Training.of(folder / name)) is not None)
    training = next((one for one in found if one.run.base is None), None)
    if training is None or (result := training.result) is None or not (result.checkpoint / METADATA).is_file():
        return None
    run, record = training.run, manifest.stages[training.run.folder.name]
    rows = int(run.config["training"].get("skip_rows", 0)) + result.step * (global_batch_size(run.config) or 0)
    return Parent(run=folder.name, checkpoint=result.checkpoint, step=result.step, rows=rows, digest=record.digest)


def _continued(night: Night, config: Experiment) -> list[Setting]:
    """The settings that make tonight's pretraining continue: its weights, a fresh optimizer, and the next rows.

    The optimizer isn't carried on: the schedule warms up and decays each night, and moments gathered at the end of a
    decay are no guide to its beginning.
    """
    module, parent = config.modules[continued(config)], night.parent
    assert parent is not None
    origin = f"night {night.date}, which continues {parent.run}"
    settings = [Setting(f"{module.name}.checkpoint.initial_load_path", str(parent.checkpoint), origin)]
    if module.config["checkpoint"]["initial_load_in_hf"]:
        # Only the first night begins with a model in transformers' format.
        settings.append(Setting(f"{module.name}.checkpoint.initial_load_in_hf", False, origin))
    if not module.config["data"]["streaming"]:
        settings.append(Setting(f"{module.name}.training.skip_rows", parent.rows, origin))
    return settings
