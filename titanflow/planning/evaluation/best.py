"""Checks in the plan by which score a training's best checkpoint is told: one of a dev part, which no card reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.config.experiment import Experiment
from titanflow.config.means.recipe import Mean, best_of
from titanflow.config.module import Module
from titanflow.evals.asked_tasks import AskedTasks, asked_by, has_metric, known_metrics
from titanflow.evals.known_names import registered
from titanflow.evals.task_checks import DATA, tested_files
from titanflow.evals.task_yaml import SingleTask, as_list
from titanflow.runs.checkpoints import flaw
from titanflow.runs.contract import DURING_FOLDER, StageRun
from titanflow.runs.scores.best import (
    KEY,
    PART,
    best_checkpoint,
    gone,
    kept_checkpoint,
    task_and_metric,
    unknown_best,
)

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan


def wanted_scores(experiment: Experiment) -> dict[str, str]:
    """The score, ``dev/task/metric``, by which the best checkpoint of a training stays, by the training's name."""
    return {mean.stages[0]: mean.by for one in experiment.evaluations.values() for mean in best_of(one.config).values()}


def check_best(experiment: Experiment, derived: Mapping[str, Module], stages: Sequence[StagePlan]) -> None:
    """Refuses a score that a training's checkpoints won't have, or by which none may be chosen.

    ``derived`` are the evaluations of trainings while they train, by name. Of a finished training it refuses a score
    that no checkpoint has, and a best checkpoint that is gone.

    Raises:
        ConfigError: with what was found and, where a person wrote it, its place.
    """
    plans = {plan.stage: plan for plan in stages}
    problems: list[Problem] = []
    evaluations = experiment.evaluations.values()
    for scoring, name, mean in ((one, *found) for one in evaluations for found in best_of(one.config).items()):
        during = derived.get(f"{mean.stages[0]}.{DURING_FOLDER}")
        if during is None:
            continue
        refuse = _Refusal(experiment, scoring, name)
        asked = asked_by(during.config, during.name, during.origins)
        problems += _score_problems(mean, during, asked, asked_by(scoring.config), refuse)
        evaluate = plans.get(scoring.name)
        if not problems and evaluate is not None and evaluate.state != "CACHED":
            problems += _unmade(mean, plans[mean.stages[0]], refuse.key)
    if problems:
        raise ConfigError(problems)


def best_notes(run: StageRun, stages: Sequence[StagePlan]) -> Iterator[str]:
    """What a plan says of an evaluation's models that are the best checkpoint of a training, once it is known."""
    for name, mean in best_of(run.config).items() if run.kind == "evaluate" else ():
        plan = next((one for one in stages if one.stage == mean.stages[0]), None)
        best = best_checkpoint(_ran(plan), mean.by) if plan is not None and plan.state == "CACHED" else None
        if best is not None:
            yield f"{name} is {best}"


class _Refusal:
    """Makes a problem with the score, where it was written."""

    def __init__(self, experiment: Experiment, scoring: Module, name: str) -> None:
        publishing = [one.name for one in experiment.of_kind("publish") if one.config["model"] == name]
        self.key = f"{publishing[0]}.{KEY}" if publishing else KEY
        self._origin = scoring.origins.get(f"means.{name}.best.by", "")

    def __call__(self, found: str, expected: str = "", hint: str = "") -> Problem:
        return Problem(found, self.key, self._origin, expected, hint)


def _score_problems(
    mean: Mean, during: Module, asked: AskedTasks, reported: AskedTasks, refuse: _Refusal
) -> Iterator[Problem]:
    (stage,), (task, metric), known = mean.stages, task_and_metric(mean.by), known_metrics(asked)
    if not known:
        # Tasks that can't be read have problems of their own.
        return
    if task not in known:
        hint = did_you_mean(task, known) or f"{stage}.during.tasks says what is asked while it trains"
        yield refuse(f"no task {task!r} is asked while {stage} trains", ", ".join(known), hint)
        return
    if not has_metric(known[task], metric):
        yield refuse(f"{task} has no metric {metric!r}", ", ".join(known[task]), did_you_mean(metric, known[task]))
        return
    # A group within a group isn't known by its tasks: those of all count.
    single = asked.tasks.get(task) or [one for one in asked.single if one.name == task] or asked.single
    for one in single:
        if (during.config["data"] or {}).get("part") == PART and _is_of_the_data(one):
            continue
        if one.name in [other.name for other in reported.single]:
            found, hint = f"the card reports {one.name}, which asks the same items in the evaluation", _DIVIDE
        else:
            found, hint = f"{one.name} doesn't ask the dev part of the evaluation's data", _DIVIDE
        yield refuse(found, f"a task that reads {DATA}, of data with a dev part", hint)
        return
    if len(single) == 1 and not _says_what_is_better(single[0], metric):
        yield single[0].yaml.problem(
            "metric_list", f"nothing says whether a larger {metric} is better", "higher_is_better: true, or false"
        )


_DIVIDE = "hold rows out, held_out: {dev: 100, test: 200}, and name the data file in the evaluate module's `data:`"


def _is_of_the_data(task: SingleTask) -> bool:
    files = tested_files(task.config)
    return not task.of_library and bool(files) and all(name.startswith(f"{DATA}/") for name in files)


def _says_what_is_better(task: SingleTask, metric: str) -> bool:
    """Whether the task or lm-eval does, of a metric that the task lists."""
    name, known = metric.partition(",")[0], registered()[0]
    entries = [one for one in as_list(task.config.get("metric_list")) if isinstance(one, Mapping)]
    named = [one for one in entries if one.get("metric") == name]
    return not named or not known or name in known or any("higher_is_better" in one for one in named)


def _unmade(mean: Mean, plan: StagePlan, key: str) -> Iterator[Problem]:
    """Why a finished training has no best checkpoint."""
    if plan.state != "CACHED":
        return
    run = _ran(plan)
    best = best_checkpoint(run, mean.by)
    if best is None:
        yield unknown_best(run, mean.by, key)
    elif flaw(kept_checkpoint(run, best.step)):
        yield gone(run, best, key)


def _ran(plan: StagePlan) -> StageRun:
    """A finished training as it ran: its scores are those that it asked for then."""
    return StageRun.of(plan.run.folder) or plan.run
