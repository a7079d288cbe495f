"""Searches the models' training data for the items of an evaluation, before any model is loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titan.evaluate.items import task_items
from titan.evaluate.tasks import load_task
from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.config.keys.after_training import Evaluate
from titanflow.config.means.recipe import averaged_stages
from titanflow.data.held_out.leaked_items import Item, LeakSearch
from titanflow.data.held_out.trained_text import TrainedOn
from titanflow.runs.contract import StageRun
from titanflow.runs.scores.contamination import Contamination, TaskLeaks

logger = logging.getLogger("titanflow.evaluate")


def look_for_leaks(
    manager: Any, run: StageRun, settings: Evaluate, planned: Mapping[Path, StageRun] | None = None
) -> Contamination | None:
    """The tasks' items found in the training data of the evaluated models; None for ``contamination: skip``.

    ``planned`` maps folders to stages that may not have begun. Raises :class:`DataError` if items were found and
    ``contamination`` is ``error``, or if ``drop`` would leave a task without items.
    """
    if settings.contamination == "skip":
        return None
    started = time.monotonic()
    trained = TrainedOn.by(_models(run, settings), planned)
    found = Contamination(not_looked_at=trained.not_looked_at, dropped=settings.contamination == "drop")
    if trained.rows:
        search = LeakSearch(_items(manager, settings, found))
        tokens = sum(rows.tokens for rows in trained.rows)
        logger.info("looking for the items in %s tokens that were trained on", f"{tokens:,}")
        for rows in trained.rows:
            for texts in rows.texts():
                search.read(texts)
        found.looked_at = list(dict.fromkeys(rows.name for rows in trained.rows))
        for name, task in search.leaked.items():
            found.tasks[name] = TaskLeaks(items=task.items, leaked=task.leaked, shared=task.shared)
    for sentence in found.sentences():
        logger.info("%s", sentence)
    logger.info("looked for the items in %.1f s", time.monotonic() - started)
    if problems := _problems(found, settings, run.origins):
        raise DataError(problems)
    return found


def scored_items(found: Contamination | None, tasks: Mapping[str, Any]) -> dict[str, list[int]] | None:
    """By task the numbers of the items to score, where leaked ones are dropped; None for all items."""
    if found is None or not found.dropped or not found.leaked.keys() & tasks.keys():
        return None
    return {name: found.tasks[name].scored for name in tasks}


def _models(run: StageRun, settings: Evaluate) -> list[tuple[str, Path]]:
    """The name and folder of each model, whether or not it exists; of this run's models the stage's folder."""
    if isinstance(settings.models, Mapping):
        return [(name, expanded(folder)) for name, folder in settings.models.items()]
    names = [name for name in settings.models if name not in settings.means]
    # A mean has seen all that its models have.
    asked = dict.fromkeys([*names, *averaged_stages(run.config)])
    return [(name, run.stages[name]) for name in asked if name in run.stages]


def _items(manager: Any, settings: Evaluate, found: Contamination) -> dict[str, list[Item]]:
    items = {}
    for asked in settings.tasks:
        loaded = load_task(manager, asked, settings.num_fewshot, settings.seed)
        for name, task in loaded["tasks"].items():
            try:
                items[name] = task_items(task, settings.limit)
            except Exception as error:
                # A task's own functions may raise anything here, and its scores can still be good.
                found.not_looked_at.append(f"the items of {name}: {error!r:.200}")
    return items


def _problems(found: Contamination, settings: Evaluate, origins: Mapping[str, str]) -> list[Problem]:
    origin, where = origins.get("contamination", ""), ", ".join(found.looked_at)
    problems = []
    for name, task in found.leaked.items():
        said = f"{len(task.leaked):,} of {task.items:,} items of {name} ({task.share:.1%}) were trained on, in {where}"
        first = f"the first is item {task.leaked[0]}"
        if settings.contamination == "error":
            hint = "take them out of the training data; or contamination: drop scores the others, report says so"
            problems.append(Problem(f"{said}: {first}", "contamination", origin, "items that nothing trains on", hint))
        elif found.dropped and len(task.leaked) == task.items:
            hint = "contamination: report scores them all the same"
            problems.append(Problem(f"{said}: nothing is left to score", "contamination", origin, "", hint))
    return problems
