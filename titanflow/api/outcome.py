"""``titanflow.results``: what a run's folder holds, as plain records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titanflow.api.arguments import PathLike, check_kind
from titanflow.api.planned import Plan
from titanflow.api.started import Run
from titanflow.architectures.huggingface import is_hugging_face
from titanflow.common.files import expanded
from titanflow.publish.card.score_table import score
from titanflow.report.contents import RunContents, StageContents, read_contents
from titanflow.report.render import REPORT_FILE
from titanflow.runs.checkpoints import complete_folders
from titanflow.runs.contract import EXPORT_FOLDER, TRAINED
from titanflow.runs.results import EvaluateResult, TrainResult, is_stderr

Record = dict[str, Any]
RunLike = Run | Plan | PathLike
"""A run, its plan, or its folder."""


@dataclass(frozen=True)
class Results:
    """What a run has made so far. All lists hold plain dicts, oldest first: ``pandas.DataFrame(results.losses)``.

    Attributes:
        folder: the run's folder.
        experiment: the experiment's name.
        run: the run's name.
        stages: of each planned stage ``stage``, ``state`` (finished, failed, unfinished or not begun; of publish also
            proposed, held back or dry run), ``seconds`` and ``error``.
        losses: a record a logged step: ``stage``, ``step``, ``loss``, ``tokens``, ``learning_rate``, ``grad_norm``, …;
            what ``metrics.jsonl`` nests is named with a slash: ``system/memory_active_gib``.
        validation: a record a validation: ``stage``, ``step``, ``validation_loss``, ``validation_perplexity``, ….
        scores: a record a score: ``stage``, ``model``, ``task``, ``metric``, ``value``, ``stderr`` and ``samples``
            (None where there are none), of an evaluation at work only for the tasks that it has finished.
        paths: ``what`` (checkpoint, export, adapter, published or report), ``stage``, ``step`` and ``path``.
        missing: name of a list above that is empty → why.
        units: key of ``losses`` and ``validation`` → its unit; – for a number without one.
    """

    folder: Path
    experiment: str
    run: str
    stages: list[Record]
    losses: list[Record]
    validation: list[Record]
    scores: list[Record]
    paths: list[Record]
    missing: dict[str, str]
    units: Mapping[str, str]


def results(run: RunLike) -> Results:
    """Reads what a run has made so far, also while it works, and after it was moved.

    Args:
        run: what :func:`titanflow.run` or :func:`titanflow.plan` returned, or a run's folder.

    Raises:
        ConfigError: the folder isn't a run's.
    """
    contents = read_contents(folder_of(run))
    trained = [stage for stage in contents.stages if stage.kind in TRAINED]
    records = [(stage.name, record) for stage in trained for record in stage.metrics]
    lists = {
        "losses": [_flat(name, record) for name, record in records if "loss" in record],
        "validation": [_flat(name, record) for name, record in records if "validation_loss" in record],
        "scores": [record for stage in contents.of_kind("evaluate") for record in _scores(stage)],
        "paths": list(_paths(contents)),
    }
    return Results(
        folder=contents.folder,
        experiment=contents.manifest.experiment,
        run=contents.manifest.run,
        stages=[_stage(stage) for stage in contents.stages],
        **lists,
        missing={name: _why(name, contents) for name, found in lists.items() if not found},
        units=_units(),
    )


def folder_of(run: RunLike) -> Path:
    """The folder of a run, however it was given.

    Raises:
        ConfigError: it is given in another way.
    """
    if isinstance(run, Run | Plan):
        return run.folder
    check_kind("run", run, str | os.PathLike, "what titanflow.run or titanflow.plan returned, or a run's folder")
    return expanded(Path(run)).absolute()


def _units() -> dict[str, str]:
    from titan.tracking.metric_names import TRAINING

    named = ((f"{one.within}/{one.key}" if one.within else one.key, one.unit) for one in TRAINING if one.key != "*")
    return {**dict(named), "seconds": "s"}


def _stage(stage: StageContents) -> Record:
    error = stage.error.message if stage.error and stage.state == "failed" else None
    return {"stage": stage.name, "state": stage.state, "seconds": stage.seconds, "error": error}


def _flat(stage: str, record: Mapping[str, Any]) -> Record:
    flat: Record = {"stage": stage}
    for key, value in record.items():
        flat |= {f"{key}/{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _scores(stage: StageContents) -> Iterator[Record]:
    if isinstance(result := stage.result, EvaluateResult):
        found = [(model, task, scores) for model, tasks in result.scores.items() for task, scores in tasks.items()]
        samples = result.samples
    else:
        # An evaluation at work has noted each task that it has finished.
        found = [(one["model"], one["task"], one["scores"]) for one in stage.metrics if "scores" in one]
        samples = {}
    for model, task, scores in found:
        for metric in (name for name in scores if not is_stderr(name)):
            own = score(scores, metric, samples.get(task))
            numbers = {"value": own.value, "stderr": own.stderr, "samples": own.samples}
            yield {"stage": stage.name, "model": model, "task": task, "metric": metric, **numbers}


def _paths(contents: RunContents) -> Iterator[Record]:
    for stage in contents.stages:
        if stage.kind not in TRAINED:
            continue
        for step, path in sorted(complete_folders(stage.folder / "checkpoint")):
            yield _path("checkpoint", stage.name, step, path)
        result = stage.result if isinstance(stage.result, TrainResult) else None
        if export := export_of(stage):
            yield _path("export", stage.name, result.step if result else None, export)
        if result and result.adapter:
            yield _path("adapter", stage.name, result.step, result.adapter)
    for published, found in contents.publications:
        if found.status == "published" and (found.target == "hub" or Path(found.location).is_dir()):
            yield _path("published", published.name, None, found.location)
    if (page := contents.folder / REPORT_FILE).is_file():
        yield _path("report", "", None, page)


def _path(what: str, stage: str, step: int | None, path: Path | str) -> Record:
    return {"what": what, "stage": stage, "step": step, "path": str(path)}


def export_of(stage: StageContents) -> Path | None:
    """The folder of a finished training that transformers loads; the evaluation makes it if the stage didn't."""
    if not isinstance(stage.result, TrainResult):
        return None
    folder = stage.result.export or stage.folder / EXPORT_FOLDER
    return folder if is_hugging_face(folder) else None


def _why(name: str, contents: RunContents) -> str:
    """Why a list is empty, by the stages that fill it."""
    filling = ("evaluate",) if name == "scores" else TRAINED
    stages = [stage for stage in contents.stages if stage.kind in filling]
    if not stages:
        return f"the run has no stage {' or '.join(filling)}"
    told = ", ".join(f"{stage.name} is {stage.state}" for stage in stages)
    return f"{told}; nothing was held out to validate on" if name == "validation" and contents.trained else told
