"""A stage's result as the rows of a table, for Prefect's artifacts and the flow's summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from titanflow.publish.card.score_table import score
from titanflow.publish.gate.figures import figures
from titanflow.runs.results import EvaluateResult, PrepareResult, PublishResult, StageResult, TrainResult, is_stderr
from titanflow.runs.tracker_record import TITLES, read_tracker_record

Row = dict[str, Any]
HELD_BACK = "Held back"
"""The Prefect state that ends a stage and its flow if the gate held the model back."""


def rows(result: StageResult) -> list[Row]:
    """The rows of a result's table; every row has the same columns."""
    tables: Mapping[type, Callable[[Any], list[Row]]] = {
        PrepareResult: _prepare_rows,
        TrainResult: _train_rows,
        EvaluateResult: _evaluate_rows,
        PublishResult: _publish_rows,
    }
    return tables[type(result)](result)


def headline(result: StageResult) -> str:
    """A result in one line."""
    match result:
        case PrepareResult():
            # Not mixtures: their tokens are those of their sources.
            datasets = [dataset for dataset in result.datasets.values() if dataset.get("kind") != "mixture"]
            tokens = sum(dataset.get("tokens", 0) for dataset in datasets)
            return f"{len(datasets)} dataset{'' if len(datasets) == 1 else 's'}, {tokens:,} tokens"
        case TrainResult():
            losses = [f"{name} {value:.4g}" for name, value in _losses(result) if value is not None]
            return ", ".join([f"step {result.step:,}", *losses])
        case EvaluateResult():
            tasks = {task for scores in result.scores.values() for task in scores}
            best = "".join(f"; {name} is {one}" for name, one in result.best.items())
            return f"{', '.join(result.scores)} on {len(tasks)} tasks{best}"
        case PublishResult():
            if reason := held_back([result]):
                return f"held back: {reason}"
            before = {"dry run": "dry run: ", "proposed": "proposed: "}.get(result.status, "")
            return before + " ".join(part for part in (result.location, result.tag) if part)


def held_back(results: Iterable[StageResult]) -> str:
    """Why the gate held a model back; empty if it didn't, or nothing was to be published."""
    reasons = [
        result.gate.reason if result.gate else HELD_BACK
        for result in results
        if isinstance(result, PublishResult) and result.status == "held back"
    ]
    return "; ".join(reasons)


def gate_lines(result: StageResult) -> list[str]:
    gate = result.gate if isinstance(result, PublishResult) else None
    return [f"{name} {found}" for name, found in figures(gate)] if gate else []


def markdown(table: Sequence[Row]) -> str:
    """A table in markdown; empty without rows."""
    if not table:
        return ""
    columns = list(table[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row[column]) for column in columns] for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "<br>".join(str(value).replace("|", "&#124;").splitlines())


def _prepare_rows(result: PrepareResult) -> list[Row]:
    return [
        {
            "dataset": dataset.get("name", folder),
            "kind": dataset.get("kind", ""),
            "rows": dataset.get("rows", ""),
            "tokens": dataset.get("tokens", ""),
            "filled": f"{dataset['fill']:.0%}" if dataset.get("fill") else "",
            "dropped": ", ".join(f"{count} {reason}" for reason, count in (dataset.get("dropped") or {}).items()),
        }
        for folder, dataset in result.datasets.items()
    ]


def _train_rows(result: TrainResult) -> list[Row]:
    values = [
        ("model", f"{result.model_name} {result.flavor}"),
        ("parameters", f"{result.parameters:,}"),
        ("trained by LoRA", result.trainable_parameters and f"{result.trainable_parameters:,}"),
        ("steps", f"{result.step:,}"),
        ("tokens", f"{result.tokens:,}"),
        *((name, None if value is None else f"{value:.4g}") for name, value in _losses(result)),
        ("tokens/s", result.tokens_per_second and f"{result.tokens_per_second:,.0f}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("checkpoint", str(result.checkpoint)),
        ("export", result.export and str(result.export)),
        ("adapter", result.adapter and str(result.adapter)),
    ]
    return [{"what": name, "value": value} for name, value in values if value is not None]


def _losses(result: TrainResult) -> list[tuple[str, float | None]]:
    return [("first loss", result.first_loss), ("loss", result.loss), ("validation loss", result.validation_loss)]


def _evaluate_rows(result: EvaluateResult) -> list[Row]:
    measured = {
        (task, metric): None
        for scores in result.scores.values()
        for task, metrics in scores.items()
        for metric in metrics
        if not is_stderr(metric)
    }
    return [
        {"task": task, "metric": metric}
        | {
            model: _score(scores.get(task, {}), metric, result.samples.get(task))
            for model, scores in result.scores.items()
        }
        for task, metric in measured
    ]


def _score(metrics: Mapping[str, float], metric: str, samples: int | None) -> str:
    return str(score(metrics, metric, samples)) if metric in metrics else ""


def _publish_rows(result: PublishResult) -> list[Row]:
    gate = result.gate
    values = [
        ("status", result.status),
        ("target", result.target),
        ("location", result.location),
        ("repository", result.repo_id),
        ("commit", result.commit),
        ("tag", result.tag),
        ("files", str(len(result.files))),
        ("gate", gate.reason if gate else ""),
        *(figures(gate) if gate else ()),
        *((name, str(proof)) for name, proof in result.gguf.items()),
    ]
    return [{"what": name, "value": value} for name, value in values if value]


def links(folder: Path, result: StageResult) -> dict[str, tuple[str, str]]:
    """The links of a stage → (text, address): only those that a browser opens, so none of an offline run."""
    records = {tracker: read_tracker_record(folder, tracker) for tracker in TITLES}
    found = {name: (f"{TITLES[name]} run", record.url) for name, record in records.items() if record is not None}
    if isinstance(result, PublishResult):
        if result.status == "published":
            found["published"] = (f"Published: {result.repo_id} {result.tag}".rstrip(), result.location)
        found["pull-request"] = ("Pull request", result.pull_request)
    return {what: link for what, link in found.items() if link[1].startswith(("https://", "http://"))}
