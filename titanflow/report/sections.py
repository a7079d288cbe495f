"""The parts of a report as plain values, so that its template computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from titanflow.common.errors import TitanflowError
from titanflow.common.quantities import duration, short
from titanflow.config.means.recipe import means_of
from titanflow.publish.bundle import WEIGHTS
from titanflow.publish.card.score_table import Z95, Score, columns, score_rows, share_bounds
from titanflow.report.contents import Evaluation, RunContents, StageContents
from titanflow.report.masks import Masks
from titanflow.runs.results import InheritanceRow, TrainResult

MASK_ROWS = 3
"""How many conversations each stage shows."""
SHOWN_WEIGHTS = 2
"""How many weight files each model shows, with their hashes."""
UNIT_SCALE = re.compile(r"(acc|exact_match|em|f1)(_|,|$)")
"""lm-eval's metrics from 0 to 1, even if they are no share: a group's, or those of partly right answers. Other metrics
with such a value have another scale: mcc (from -1), bits_per_byte."""


@dataclass(frozen=True)
class Tile:
    """One figure of the page's head."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """A score's place on a bar from 0 to 1, in percent of the bar: the value and its 95 % interval."""

    value: float
    low: float
    width: float


@dataclass(frozen=True)
class EvaluatedModel:
    """The model behind a name in the table of scores: a folder, and the SHA-256 of its first weight files.

    ``mean`` says of which models it is the mean, if it is one.
    """

    name: str
    folder: str
    weights: list[tuple[str, str]]
    more: int
    mean: str


@dataclass(frozen=True)
class MaskedText:
    """A conversation in pieces: text, and whether the model is trained to write it."""

    source: str
    tokens: int
    trained: int
    pieces: list[tuple[str, bool]]


def tiles(run: RunContents) -> list[Tile]:
    found = []
    trained = run.trained
    if trained:
        outcome = run.evaluation.outcome if run.evaluation else ""
        stage, result = next((one for one in trained if one[0].name == outcome), trained[-1])
        found.append(Tile("parameters", short(result.parameters), f"{result.model_name} {result.flavor}"))
        tokens = sum(result.tokens for _, result in trained)
        found.append(Tile("tokens trained", short(tokens), " + ".join(stage.name for stage, _ in trained)))
        if result.loss is not None:
            held_out = "" if result.validation_loss is None else f"held out {result.validation_loss:.3f}"
            found.append(Tile(f"{stage.name} loss", f"{result.loss:.3f}", held_out))
    found += best_scores(run)
    if seconds := [stage.seconds for stage in run.stages if stage.seconds is not None]:
        total = sum(seconds)
        time = f"{total / 3600:.1f} h" if total >= 3600 else f"{total / 60:.1f} min"
        found.append(Tile("time", time, f"{len(seconds)} stages"))
    return found


def best_scores(run: RunContents) -> list[Tile]:
    """The first metric of the first two tasks that have one where higher is better; of the run's outcome beside the
    first model."""
    if run.evaluation is None:
        return []
    evaluation, outcome = run.evaluation.result, run.evaluation.outcome
    models = columns(evaluation, outcome)
    rows: dict[str, Tile] = {}
    for row in score_rows(evaluation, outcome):
        first, last = row.scores[0], row.scores[-1]
        if row.higher_is_better is not False and row.task not in rows and last.value is not None:
            beside = f", {models[0]} {first.value:.3f}" if len(models) > 1 and first.value is not None else ""
            rows[row.task] = Tile(row.task, f"{last.value:.3f}", row.metric + beside)
    return list(rows.values())[:2]


def result_table(evaluation: Evaluation) -> dict[str, Any]:
    result, outcome = evaluation.result, evaluation.outcome
    rows = [
        (row, [(score, interval(score, row.metric)) for score in row.scores])
        for row in score_rows(result, outcome)
        # Of the perplexities only bits per byte compares across tokenizers.
        if not row.metric.endswith("perplexity")
    ]
    part = result.part if result.part == "dev" else ""
    return {"models": columns(result, outcome), "rows": rows, "part": part}


def evaluated_models(one: Evaluation) -> list[EvaluatedModel]:
    """The evaluated models in the order of their columns; folders in the run are relative to the run."""
    found, evaluation, stage = [], one.result, one.stage
    root = stage.folder.parent.resolve()
    given = means_of(stage.run.config) if stage.run else {}
    # Of the best checkpoint of a training the result says which step it is.
    means = {name: mean for name, mean in given.items() if name not in evaluation.best}
    for name in columns(evaluation, one.outcome):
        if (folder := evaluation.folders.get(name)) is None:
            continue
        weights = [
            (file, sha256) for file, sha256 in evaluation.digests.get(name, {}).items() if WEIGHTS.fullmatch(file)
        ]
        shown = folder.resolve().relative_to(root) if folder.resolve().is_relative_to(root) else folder
        mean = str(means.get(name, ""))
        found.append(EvaluatedModel(name, str(shown), weights[:SHOWN_WEIGHTS], len(weights[SHOWN_WEIGHTS:]), mean))
    return found


def interval(score: Score, metric: str) -> Interval | None:
    """A score's place on a bar from 0 to 1; None without a standard error, or on another scale."""
    value, stderr = score.value, score.stderr
    if value is None or stderr is None or not 0 <= value <= 1:
        return None
    bounds = share_bounds(score)
    if bounds is None and not UNIT_SCALE.match(metric):
        return None
    low, high = bounds or (max(0.0, value - Z95 * stderr), min(1.0, value + Z95 * stderr))
    return Interval(round(100 * value, 2), round(100 * low, 2), round(100 * (high - low), 2))


def timings(run: RunContents) -> list[tuple[str, str, float]]:
    """Each finished stage, its time beside its forecast, and its share of the longest in percent."""
    measured = [(stage, stage.seconds) for stage in run.stages if stage.seconds is not None]
    longest = max((seconds for _, seconds in measured), default=0.0) or 1.0
    return [
        (stage.name, duration(seconds) + _forecast_of(stage), round(100 * seconds / longest, 2))
        for stage, seconds in measured
    ]


def _forecast_of(stage: StageContents) -> str:
    found = stage.reconciled
    if found is None or found.expected_seconds is None:
        return ""
    return f", forecast {duration(found.expected_seconds)}"


def inheritance(stage: StageContents) -> dict[str, list[InheritanceRow]]:
    """The settings that a fine-tuning stage made itself or took from its base; as planned if it isn't finished."""
    rows = stage.result.inheritance if isinstance(stage.result, TrainResult) else stage.inheritance
    return {
        "own": [row for row in rows if row.how != "inherited"],
        "inherited": [row for row in rows if row.how == "inherited"],
    }


def masked_rows(stage: StageContents) -> list[MaskedText]:
    """The first conversations that a stage trains on, token by token; none if its prepared data is gone."""
    run = stage.run
    if run is None or run.data.train is None or run.tokenizer is None:
        return []
    try:
        masks = Masks(run.data.train, run.tokenizer)
        return list(_masked(masks)) if masks.infos else []
    except (OSError, ValueError, TypeError, TitanflowError):
        return []


def _masked(masks: Masks) -> Iterator[MaskedText]:
    from titanflow.data.tokenizer.tokenizer import described_tokenizer

    backend = described_tokenizer(masks.tokenizer)
    # Each source of a mixture shows at least one.
    for row in masks.rows(max(1, MASK_ROWS // len(masks.infos))):
        pieces = [(said, is_trained) for is_trained, said in row.spans(backend)]
        yield MaskedText(row.name, len(row.input_ids), sum(row.trained), pieces)
