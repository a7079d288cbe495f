"""The model card: what the model is, how to run it, what it scores and where it comes from.

Text from data, a model or a config reaches the card through :mod:`titanflow.publish.card.markdown`. The same run gives
the same bytes: nothing here depends on when or where it is published.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from titanflow import __version__
from titanflow.common.curves import draw, loss_panel
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.config.keys.after_training import Publish
from titanflow.config.means.recipe import means_of
from titanflow.publish.bundle import LOSS_CURVE, TASK_FILES, Bundle, modelling_code
from titanflow.publish.card.data_licenses import licenses_table
from titanflow.publish.card.markdown import code, fence, plain
from titanflow.publish.card.model_index import LANGUAGE_MODELING, benchmark_files, eval_results
from titanflow.publish.card.score_commands import drawn_tasks, inexact, score_commands
from titanflow.publish.card.score_table import LastPublished, seeds_text
from titanflow.publish.card.tables import (
    answers_table,
    data_table,
    export_check,
    gate_table,
    gguf_table,
    markdown_table,
    results_table,
    training_table,
    weight_digests,
)
from titanflow.publish.card.training_data import hub_datasets, training_data
from titanflow.publish.lineage import EvaluatedStage, Lineage
from titanflow.publish.settings import published_name, tag_of
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import counted
from titanflow.runs.tracker_record import tracked

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def model_card(lineage: Lineage, settings: Publish, bundle: Bundle, signed_by: str = "") -> bytes:
    """Renders ``README.md``; ``bundle`` holds everything else that is published but ``titanflow.json``.

    ``signed_by`` is the fingerprint of the key that will sign it all.

    The client's own ``validate`` and ``push_to_hub`` aren't used: they talk to huggingface.co whatever ``HF_ENDPOINT``
    says. A Hub checks the card when it is committed.
    """
    name = published_name(settings, lineage.experiment)
    card = _template().render(
        front_matter=card_data(name, lineage, settings).to_yaml(),
        name=name,
        settings=settings,
        tag=tag_of(settings, lineage.experiment, lineage.run),
        # A base model carries the template too, but has never seen a conversation.
        chat=TEMPLATE_FILE in bundle and lineage.is_tuned,
        code=modelling_code(bundle),
        has_curve=LOSS_CURVE in bundle,
        titanflow=__version__,
        signed_by=signed_by,
        lineage=lineage,
        model=lineage.published.result,
        evaluation=lineage.evaluation.result if lineage.evaluation else None,
        gate=lineage.gate,
        digests=weight_digests(lineage, bundle),
        versions=sorted(versions(lineage).items()),
        commands=(given := commands(lineage, bundle)),
        fence=fence("\n".join(given)),
        has_task_files=any(TASK_FILES.fullmatch(name) for name in bundle),
        has_task_code=any(TASK_FILES.fullmatch(name) and name.endswith(".py") for name in bundle),
        **tables(lineage),
    )
    return (card.rstrip() + "\n").encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": plain, "code": code, "counted": counted, "tracked": tracked}
    environment.filters["export_check"] = export_check
    return environment.get_template(TEMPLATE.name)


def _means(found: EvaluatedStage) -> dict[str, str]:
    return {name: str(found.result.best.get(name, mean)) for name, mean in means_of(found.run.config).items()}


def tables(lineage: Lineage) -> dict[str, Any]:
    """The card's tables in markdown, and what it says of its scores."""
    found, gate = lineage.evaluation, lineage.gate
    last = LastPublished.read(lineage.last) if lineage.last else None
    # A mean, and the best checkpoint of a training, were made without training.
    stages = tuple(stage for stage in lineage.trained if not stage.result.mean_of)
    data = training_data((stage.run for stage in stages), lineage.datasets)
    return {
        "results": markdown_table(results_table(found, last)) if found else "",
        "means": _means(found) if found else {},
        "answers": markdown_table(answers_table(found)) if found else "",
        "checks": markdown_table(gate_table(gate)) if gate else "",
        "training": markdown_table(training_table(stages)),
        "data": markdown_table(data_table(data)),
        "licenses": markdown_table(licenses_table(lineage)) if lineage.trained_on else "",
        "drawn": drawn_tasks(found) if found else [],
        "inexact": inexact(found.run.config) if found else [],
        "seeds": seeds_text(found.result.seeds) if found else "",
        "gguf": markdown_table(gguf_table(lineage.gguf)),
        "has_local_tasks": bool(found and found.own & found.scores.keys()),
    }


def _means(found: EvaluatedStage) -> dict[str, str]:
    """What each evaluated model is that is a mean, or the best checkpoint of a training."""
    return {name: str(found.result.best.get(name, mean)) for name, mean in means_of(found.run.config).items()}


def commands(lineage: Lineage, bundle: Bundle) -> list[str]:
    """The commands that reproduce the scores; none if the scores compare with nothing, or are a checkpoint's."""
    found = lineage.evaluation
    if found is None or found.result.limit is not None or found.result.backend == "native":
        return []
    return score_commands(found, bundle)


def card_data(name: str, lineage: Lineage, settings: Publish) -> ModelCardData:
    """The card's front matter. It has scores only if whole tasks were evaluated."""
    datasets = list(dict.fromkeys(found for stage in lineage.trained for found in hub_datasets(stage.run.config)))
    return ModelCardData(
        model_name=name,
        license=settings.license,
        license_name=settings.license_name,
        license_link=settings.license_link,
        language=settings.language or None,
        library_name="transformers",
        pipeline_tag=LANGUAGE_MODELING,
        base_model=lineage.base_model or None,
        datasets=datasets or None,
        tags=["titanflow", "torchtitan", *settings.tags],
        eval_results=eval_results(lineage.evaluation) if lineage.evaluation else None,
    )


def card_files(lineage: Lineage) -> dict[str, bytes]:
    """The files published with the card: the loss curve, and scores of the Hub's own benchmarks."""
    files = {}
    if curve := loss_picture(lineage):
        files[LOSS_CURVE] = curve
    if lineage.evaluation:
        files |= benchmark_files(lineage.evaluation)
    return files


def loss_picture(lineage: Lineage) -> bytes | None:
    records = {stage.name: read_metrics(stage.folder / METRICS_FILE) for stage in lineage.trained}
    panels = [panel for name, found in records.items() if (panel := loss_panel(found, name))]
    return draw(panels, width=10, height=3.6) if panels else None


def versions(lineage: Lineage) -> dict[str, str]:
    """The versions that the stages recorded; the published stage's win."""
    evaluated = lineage.evaluation.result.versions if lineage.evaluation else {}
    return {"titanflow": __version__} | evaluated | lineage.published.result.versions
