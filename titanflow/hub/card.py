"""The model card: what the model is, how to run it, what it scores and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from titanflow import __version__
from titanflow.config.additions import Publish
from titanflow.hub.bundle import WEIGHTS, Bundle
from titanflow.hub.lineage import Lineage, TrainedStage, hyperparameters
from titanflow.stage import EvaluateResult

TEMPLATE = Path(__file__).with_name("card.md.jinja")
STDERR = "_stderr"
LANGUAGE_MODELING = "text-generation"
CHAT_TEMPLATE = "chat_template.jinja"
MISSING = "n/a"


def model_card(lineage: Lineage, settings: Publish, bundle: Bundle) -> bytes:
    """Renders ``README.md``. ``bundle`` holds the exported files; the card lists the hashes of the weights.

    The client's own ``validate`` and ``push_to_hub`` are not used: they talk to huggingface.co whatever
    ``HF_ENDPOINT`` says. A Hub checks the card when it is committed.
    """
    name = settings.repo_id.split("/")[-1] if settings.repo_id else f"{lineage.experiment}-{lineage.model}"
    evaluation = lineage.evaluation
    card = ModelCard.from_template(
        card_data(name, lineage, settings),
        template_path=str(TEMPLATE),
        name=name,
        repo_id=settings.repo_id,
        tag=settings.tag or lineage.run,
        # A base model carries the template too, but has never seen a conversation.
        chat=CHAT_TEMPLATE in bundle and lineage.model == "sft",
        code=sorted(name for name in bundle if name.endswith(".py")),
        titanflow=__version__,
        lineage=lineage,
        model=lineage.published.result,
        evaluation=evaluation,
        models=columns(evaluation, lineage.evaluated_as) if evaluation else [],
        rows=list(result_rows(evaluation, lineage.evaluated_as)) if evaluation else [],
        training=training_table(lineage.trained),
        digests=weight_digests(lineage, bundle),
        versions=sorted(versions(lineage).items()),
        license=settings.license,
        example=settings.example,
    )
    return (str(card).rstrip() + "\n").encode()


def card_data(name: str, lineage: Lineage, settings: Publish) -> ModelCardData:
    """The card's front matter. Scores go in only where whole tasks were evaluated."""
    complete = lineage.evaluation is not None and lineage.evaluation.limit is None
    return ModelCardData(
        model_name=name,
        license=settings.license,
        language=settings.language or None,
        library_name="transformers",
        pipeline_tag=LANGUAGE_MODELING,
        base_model=lineage.published.result.base_model or None,
        tags=["titanflow", "torchtitan", *settings.tags],
        eval_results=eval_results(lineage.evaluation, lineage.evaluated_as)
        if complete and lineage.evaluation
        else None,
    )


def eval_results(evaluation: EvaluateResult, model: str) -> list[EvalResult] | None:
    """The published model's scores as entries of the front matter's ``model-index``; None where there are none."""
    results = [
        EvalResult(
            task_type=LANGUAGE_MODELING,
            dataset_type=task,
            dataset_name=task,
            dataset_revision=evaluation.task_versions.get(task),
            dataset_args={"num_few_shot": evaluation.n_shot.get(task, 0)},
            metric_type=metric,
            metric_name=metric,
            metric_value=value,
        )
        for task, scores in evaluation.scores.get(model, {}).items()
        for metric, value in metrics(scores).items()
    ]
    return results or None


def metrics(scores: dict[str, float]) -> dict[str, float]:
    """The scores proper, without their standard errors and without what isn't a number."""
    return {key: value for key, value in scores.items() if not key.endswith(STDERR) and math.isfinite(value)}


def columns(evaluation: EvaluateResult, model: str) -> list[str]:
    """The evaluated models, the published one last: base | SFT."""
    return [*(name for name in evaluation.scores if name != model), model]


def result_rows(evaluation: EvaluateResult, model: str) -> Iterator[dict[str, Any]]:
    """A row for each task and metric, with every model's score."""
    models = columns(evaluation, model)
    tasks = dict.fromkeys(task for name in models for task in evaluation.scores.get(name, {}))
    for task in tasks:
        scores = [evaluation.scores.get(name, {}).get(task, {}) for name in models]
        for metric in dict.fromkeys(metric for score in scores for metric in metrics(score)):
            better = evaluation.higher_is_better.get(task, {}).get(metric)
            yield {
                "task": task,
                "version": evaluation.task_versions.get(task, ""),
                "n_shot": evaluation.n_shot.get(task, 0),
                "samples": evaluation.samples.get(task, ""),
                "metric": metric + {True: " ↑", False: " ↓", None: ""}[better],
                "scores": [score_text(score, metric) for score in scores],
            }


def score_text(scores: dict[str, float], metric: str) -> str:
    """A score with its standard error where there is one: ``0.930 ± 0.011``."""
    value, stderr = scores.get(metric, math.nan), scores.get(metric + STDERR, math.nan)
    if not math.isfinite(value):
        return MISSING
    return f"{value:.3f} ± {stderr:.3f}" if math.isfinite(stderr) else f"{value:.3f}"


def training_table(stages: tuple[TrainedStage, ...]) -> list[tuple[str, list[str]]]:
    """The rows of the training table: a label, and a value for each stage. Rows that no stage fills are left out."""
    rows: dict[str, list[str]] = {}
    for stage in stages:
        result, settings = stage.result, hyperparameters(stage)
        values = {
            "data": stage.data,
            "steps": result.step,
            "tokens": result.tokens,
            "sequence length": result.seq_len,
            "rows a step": settings["batch"],
            "optimizer": settings["optimizer"],
            "peak learning rate": settings["lr"],
            "warm-up steps": settings["warmup_steps"],
            "LoRA": settings["lora"] and "rank {rank}, alpha {alpha:g}, merged".format(**settings["lora"]),
            "trained parameters": result.trainable_parameters,
            "loss, first (nats/token)": result.first_loss,
            "loss, last (nats/token)": result.loss,
            "loss on held-out rows": result.validation_loss,
            "seconds": round(result.seconds),
            "tokens/s": result.tokens_per_second and round(result.tokens_per_second),
        }
        for label, value in values.items():
            rows.setdefault(label, []).append(number_text(value))
    return [(label, values) for label, values in rows.items() if any(value != MISSING for value in values)]


def number_text(value: Any) -> str:
    """A cell of the training table: thousands apart, losses to four digits, learning rates as written."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.4f}" if value >= 0.01 else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", r"\|")


def weight_digests(lineage: Lineage, bundle: Bundle) -> list[tuple[str, str, str]]:
    """Stage, file and SHA-256 of each export's weights: the published ones, and those of what they came from."""
    published = {name: entry.sha256 for name, entry in bundle.items()}
    return [
        (stage.name, name, sha256)
        for stage in lineage.trained
        for name, sha256 in (published if stage.name == lineage.model else stage.result.export_digests).items()
        if WEIGHTS.fullmatch(name)
    ]


def versions(lineage: Lineage) -> dict[str, str]:
    """The versions that the stages recorded, the published stage's first."""
    evaluated = lineage.evaluation.versions if lineage.evaluation else {}
    return {"titanflow": __version__} | evaluated | lineage.published.result.versions
