"""Tries evaluations before anything is trained: ``python -m titan.evaluate.rehearse rehearsal.json``.

No model is loaded, and torch isn't imported. Each task is loaded as its evaluation will load it, and a few of its items
get made-up answers. If leaked items could end the evaluation, they are searched for now.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from titan.evaluate.contamination import look_for_leaks
from titan.evaluate.tasks import load_task, rendered_tasks, stay_offline, task_manager
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.after_training import Evaluate
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.evals.task_yaml import SingleTask
from titanflow.planning.evaluation.rehearsal import Rehearsal
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import log_to_stderr, record_failure
from titanflow.runs.results import PrepareResult, write_result

ITEMS = 8
"""Items of each task that are tried."""

logger = logging.getLogger("titanflow.evaluate")


def rehearse(asked: Rehearsal, folder: Path) -> None:
    tried = [_Tried.of(name, run, folder) for name, run in asked.evaluations.items()]
    # For all of them, before lm-eval is imported.
    stay_offline((one.tasks for one in tried), any(one.settings.remote_code for one in tried))
    problems = [problem for one in tried for problem in one.problems()]
    if problems:
        raise ConfigError(problems)
    planned = {stage.folder: stage for stage in asked.trained}
    for one in tried:
        if one.settings.contamination in ("error", "drop"):
            look_for_leaks(one.manager, one.run, one.settings, planned)


@dataclass(frozen=True)
class _Tried:
    """An evaluation that is tried: its ``run.yaml`` with a folder of its own, and its tasks, ``rendered`` there."""

    name: str
    run: StageRun
    settings: Evaluate
    tasks: AskedTasks
    rendered: Path | None

    @classmethod
    def of(cls, name: str, run: StageRun, folder: Path) -> _Tried:
        run = run.model_copy(update={"folder": folder / name})
        settings = Evaluate(**run.config)
        return cls(name, run, settings, *rendered_tasks(run, settings))

    @cached_property
    def manager(self) -> Any:
        return task_manager(self.tasks, self.rendered)

    def problems(self) -> Iterator[Problem]:
        for task in self.settings.tasks:
            yield from _task_problems(self.manager, task, self.tasks, self.settings, f"{self.name}.tasks")


def _task_problems(manager: Any, name: str, tasks: AskedTasks, settings: Evaluate, key: str) -> Iterator[Problem]:
    single = {task.name: task for task in tasks.tasks[name]}
    try:
        loaded = load_task(manager, name, settings.num_fewshot, settings.seed, settings.gen_kwargs, tasks.of_ones_own)
    except ConfigError as error:
        yield from error.problems
        return
    except Exception as error:
        yield _problem(f"{name} can't be loaded", error, next(iter(single.values()), None), key)
        return
    for own, task in loaded["tasks"].items():
        step = "asked"
        try:
            asked = ask(task, settings)
            step = "scored"
            missing = score(task, asked)
        except Exception as error:
            if step == "scored" and is_own(task):
                # The task's own functions may rightly refuse a made-up answer.
                logger.warning("%s can't be scored with a made-up answer: %r", own, error)
                continue
            yield _problem(f"{own} can't be {step}", error, single.get(own) or next(iter(single.values()), None), key)
            continue
        if missing:
            logger.warning("%s gives no score of %s", own, ", ".join(missing))


def ask(task: Any, settings: Evaluate) -> list[Any]:
    """The requests of a few items, with made-up answers."""
    from lm_eval.evaluator_utils import get_sample_size

    size = get_sample_size(task, settings.limit)
    task.build_all_requests(
        limit=min(int(size or ITEMS), ITEMS),
        rank=0,
        world_size=1,
        system_instruction=settings.system_instruction,
        fewshot_as_multiturn=False,
    )
    for number, request in enumerate(task.instances):
        request.resps = [_answer(request.request_type, number)] * (request.repeats or 1)
    return list(task.instances)


def score(task: Any, asked: list[Any]) -> list[str]:
    """Scores made-up answers as lm-eval does; returns the metrics that gave no score."""
    task.apply_filters()
    items: dict[int, list[Any]] = {}
    for request in asked:
        items.setdefault(request.doc_id, []).append(request)
    found: dict[str, list[Any]] = {}
    for requests in items.values():
        requests.sort(key=lambda request: request.idx)
        for name in requests[0].filtered_resps:
            answers = [request.filtered_resps[name] for request in requests]
            for metric, value in task.process_results(requests[0].doc, answers).items():
                found.setdefault(metric, []).append(value)
    aggregations = task.aggregation()
    for metric, values in found.items():
        if metric in aggregations:
            aggregations[metric](values)
    return sorted(str(metric) for metric in aggregations if metric not in found)


def is_own(task: Any) -> bool:
    """Whether the task is scored by functions that aren't lm-eval's."""
    from lm_eval.api.registry import aggregation_registry

    known = {aggregation_registry.get(name) for name in aggregation_registry}
    of_all = any(one not in known for one in task.aggregation().values())
    of_one = (one for one in getattr(task, "_metric_fn_list", {}).values() if one is not None)
    of_items = any(not (getattr(one, "__module__", None) or "").startswith("lm_eval.") for one in of_one)
    return callable(task.config.process_results) or of_all or of_items


def _answer(kind: str, number: int) -> Any:
    if kind == "generate_until":
        return "an answer"
    return -1.0 - number if kind == "loglikelihood_rolling" else (-1.0 - number, False)


def _problem(what: str, error: Exception, task: SingleTask | None, key: str) -> Problem:
    message = f"{what}: {type(error).__name__}: {error}"[:500]
    if task is None or task.of_library:
        hint = "is it on this machine, or the Hub within reach?"
        return Problem(message, key, expected="a task that lm-eval can ask", hint=hint)
    return task.yaml.problem("task", message, "a task that lm-eval can ask")


def main(file: Path) -> int:
    """Runs a ``rehearsal.json``; returns the exit code, and writes ``error.json`` beside the file for a failure."""
    log_to_stderr()
    started = time.monotonic()
    try:
        asked = Rehearsal.model_validate_json(file.read_text(encoding="utf-8"))
        rehearse(asked, file.parent)
    except Exception as error:
        return record_failure(file.parent, error)
    write_result(file.parent, PrepareResult(seconds=round(time.monotonic() - started, 3)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
