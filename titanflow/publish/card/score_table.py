"""Scores side by side: the models of an evaluation, and the model that was published last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from titanflow.runs.results import STDERR, EvaluateResult, is_stderr
from titanflow.runs.scores.contamination import Contamination

MISSING = "n/a"
Z95 = 1.96
"""Half the width of a 95 % interval, in standard errors."""
LEAST = 2
"""The fewest samples that have a standard error."""


@dataclass(frozen=True)
class LastPublished:
    """The model that was published before: its run and its scores, from its ``titanflow.json``.

    ``conditions`` has each task's version and number of shots, ``dropped`` the items that weren't scored because they
    were trained on. A score is shown only if these and the limit are the same.
    """

    run: str
    scores: Mapping[str, Mapping[str, float]]
    conditions: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    limit: float | None = None
    dropped: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, lineage: Mapping[str, Any]) -> LastPublished | None:
        """A ``titanflow.json``'s own model; None if it was published without an evaluation."""
        evaluation = (lineage.get("stages") or {}).get("evaluate")
        if not evaluation:
            return None
        scores = (evaluation.get("scores") or {}).get(lineage.get("evaluated_as"), {})
        versions, n_shot = evaluation.get("task_versions") or {}, evaluation.get("n_shot") or {}
        conditions = {task: (str(versions.get(task, "")), int(n_shot.get(task, 0))) for task in scores}
        found = evaluation.get("contamination")
        dropped = Contamination.model_validate(found).dropped_items if found else {}
        return cls(str(lineage.get("run", "")), scores, conditions, evaluation.get("limit"), dropped)

    def comparable(self, evaluation: EvaluateResult, task: str) -> Mapping[str, float]:
        """Its scores of a task; none if they were made otherwise than the evaluation's."""
        condition = (evaluation.task_versions.get(task, ""), evaluation.n_shot.get(task, 0))
        dropped = evaluation.contamination.dropped_items.get(task) if evaluation.contamination else None
        same = (self.limit, self.conditions.get(task), self.dropped.get(task)) == (evaluation.limit, condition, dropped)
        return self.scores[task] if same else {}


@dataclass(frozen=True)
class Score:
    """A score, its standard error and its number of samples, each None if there is none."""

    value: float | None = None
    stderr: float | None = None
    samples: int | None = None

    def __str__(self) -> str:
        if self.value is None:
            return MISSING
        if self.stderr == 0 and (bounds := share_bounds(self)) is not None:
            # All right or all wrong: a standard error of 0 says nothing about the next sample.
            return f"{self.value:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"
        return f"{self.value:.3f}" if self.stderr is None else f"{self.value:.3f} ± {self.stderr:.3f}"


def share_bounds(score: Score) -> tuple[float, float] | None:
    """The 95 % interval of a share of right answers: Wilson's (JASA 22, 1927), which has a width even for 0 of 200.

    None for any other score. A share is recognised by its standard error, which is that of a mean of zeros and ones.
    """
    share, stderr, samples = score.value, score.stderr, score.samples
    if share is None or stderr is None or samples is None or samples < LEAST or not 0 <= share <= 1:
        return None
    if not math.isclose(stderr, math.sqrt(share * (1 - share) / (samples - 1)), rel_tol=1e-6, abs_tol=1e-9):
        return None
    shrunk = 1 + Z95**2 / samples
    centre = (share + Z95**2 / (2 * samples)) / shrunk
    half = Z95 / shrunk * math.sqrt(share * (1 - share) / samples + Z95**2 / (4 * samples**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one task, a score a column; ``n_shot`` is empty for a group of tasks with different numbers."""

    task: str
    version: str
    n_shot: int | str
    samples: int | str
    metric: str
    higher_is_better: bool | None
    scores: list[Score]

    @property
    def arrow(self) -> str:
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]


def metrics(scores: Mapping[str, float | None]) -> dict[str, float]:
    """The scores without their standard errors and without what isn't a finite number."""
    return {key: value for key, value in scores.items() if not is_stderr(key) and _finite(value) is not None}  # type: ignore[misc]


def score(scores: Mapping[str, float | None], metric: str, samples: int | None = None) -> Score:
    """A metric's score with its standard error and number of samples."""
    name, comma, filtered = metric.partition(",")
    return Score(_finite(scores.get(metric)), _finite(scores.get(f"{name}{STDERR}{comma}{filtered}")), samples)


def seeds_text(seeds: Mapping[str, int]) -> str:
    """The seeds of an evaluation in words; one number if all are the same."""
    if len(set(seeds.values())) == 1:
        return f"seed {next(iter(seeds.values()))}"
    return f"seeds {', '.join(f'{name} {seed}' for name, seed in seeds.items())}" if seeds else ""


def columns(evaluation: EvaluateResult, model: str) -> list[str]:
    """The evaluated models, ``model`` last: base | sft."""
    return [*(name for name in evaluation.scores if name != model), *([model] if model in evaluation.scores else [])]


def score_rows(evaluation: EvaluateResult, model: str, last: LastPublished | None = None) -> Iterator[ScoreRow]:
    """A row for each task and metric: a score for each of ``columns``, and one of ``last`` if given."""
    models = columns(evaluation, model)
    tasks = dict.fromkeys(task for name in models for task in evaluation.scores[name])
    for task in tasks:
        found: list[Mapping[str, float]] = [evaluation.scores[name].get(task, {}) for name in models]
        shown = dict.fromkeys(metric for scores in found for metric in metrics(scores))
        if last is not None:
            found.append(last.comparable(evaluation, task))
        for metric in shown:
            yield ScoreRow(
                task,
                evaluation.task_versions.get(task, ""),
                evaluation.n_shot.get(task, ""),
                evaluation.samples.get(task, ""),
                metric,
                evaluation.higher_is_better.get(task, {}).get(metric.split(",", 1)[0]),
                [score(scores, metric, evaluation.samples.get(task)) for scores in found],
            )


def _finite(value: float | None) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
