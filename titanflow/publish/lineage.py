"""Where a published model comes from: the stages of its run, and the ``titanflow.json`` that records them.

Nothing here depends on when or where it is published, so that publishing a run twice gives the same bytes. No path,
environment or credential is copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from titanflow import __version__
from titanflow.architectures.families.registry import export_refusal
from titanflow.common.errors import DataError, Problem
from titanflow.config.batch import global_batch_size
from titanflow.config.keys.training import Lora, Prefer
from titanflow.config.means.recipe import averaged_stages
from titanflow.evals.asked_tasks import AskedTasks, asked_by
from titanflow.evals.library import index
from titanflow.files.own_files import parse_yaml
from titanflow.nightly.night import Night, Parent
from titanflow.publish.bundle import Bundle, is_published
from titanflow.publish.card.training_data import prepared_datasets
from titanflow.publish.integrity import seal
from titanflow.runs.contract import (
    EXPORT_FOLDER,
    RESULT_FILE,
    RUN_FILE,
    TASKS_FOLDER,
    DataOrigin,
    StageKind,
    StageRun,
)
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import EvaluateResult, GateDecision, GgufFile, TrainResult, read_result, tracked_ids
from titanflow.runs.training import Training, finished_training

TUNED_ON: dict[StageKind, str] = {"sft": "conversations", "prefer": "pairs of answers"}
TRAIN_FIELDS = {
    "step", "tokens", "first_loss", "loss", "validation_loss", "seq_len", "parameters", "trainable_parameters",
    "model_name", "flavor", "model_args", "inheritance", "base_model", "mean_of", "best", "tokenizer_digest",
    "export_digests", "parity", "versions",
}  # fmt: skip
EVALUATE_FIELDS = {
    "scores", "samples", "n_shot", "task_versions", "higher_is_better", "reference", "limit", "contamination", "seeds",
    "digests", "versions",
}  # fmt: skip


@dataclass(frozen=True)
class TrainedStage:
    """A finished training stage; some families have no ``export``."""

    name: str
    folder: Path
    run: StageRun
    result: TrainResult
    export: Path | None = None

    @property
    def data(self) -> str:
        """The name of the training data, without any path of this machine."""
        data = self.run.config.get("data") or {}
        return str(data.get("name") or data.get("source") or "")


@dataclass(frozen=True)
class EvaluatedStage:
    """A finished evaluation, which calls the published model ``model``.

    ``asked`` are its tasks, from the task files that it ran and kept. ``own`` are the names that these files define,
    ``items`` is the folder of the prepared items as these files name it.
    """

    folder: Path
    run: StageRun
    result: EvaluateResult
    model: str
    asked: AskedTasks
    own: frozenset[str] = frozenset()
    items: Path | None = None

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """The published model's scores by task and metric."""
        return self.result.scores.get(self.model, {})


@dataclass(frozen=True)
class Lineage:
    """The finished stages that lead to a model, in order; each file of theirs is read once, by :func:`read_lineage`.

    ``model`` is the last of ``trained`` and is published from the folder ``export``. ``git`` is this program's commit.
    ``datasets`` has the ``dataset.json`` of each folder of prepared data. ``gate`` is the decision to publish; ``last``
    has the replaced model's run and scores, in the form of its ``titanflow.json``. ``kept`` lists, for each stage that
    was used although the config differs, the differing keys. ``continues`` is the night whose weights the pretraining
    began with. ``gguf`` has the files for llama.cpp by name, with their proof. ``trained_on`` has the sources of the
    trained stages' rows.
    """

    experiment: str
    run: str
    model: str
    export: Path
    trained: tuple[TrainedStage, ...]
    git: str = ""
    evaluation: EvaluatedStage | None = None
    datasets: Mapping[str, Any] = field(default_factory=dict)
    gate: GateDecision | None = None
    last: dict[str, Any] | None = None
    kept: dict[str, list[str]] = field(default_factory=dict)
    continues: Parent | None = None
    gguf: Mapping[str, GgufFile] = field(default_factory=dict)
    trained_on: tuple[DataOrigin, ...] = ()

    @property
    def published(self) -> TrainedStage:
        return self.trained[-1]

    @property
    def tokens(self) -> int:
        """The tokens that the model saw in this run; of a training whose best checkpoint it is, those until then."""
        left_out = {stage.result.best.stage for stage in self.trained if stage.result.best}
        return sum(stage.result.tokens for stage in self.trained if stage.name not in left_out)

    @property
    def is_tuned(self) -> bool:
        """Whether the model was fine-tuned, on conversations or on pairs of answers."""
        return self.published.run.kind != "pretrain"

    @property
    def tuned_on(self) -> str:
        """The kinds of data that the model was fine-tuned on, for the card."""
        kinds = {stage.run.kind for stage in self.trained}
        return " and then on ".join(data for kind, data in TUNED_ON.items() if kind in kinds)

    @property
    def base_model(self) -> str:
        """The repository that the first stage began with, if any."""
        return next((stage.result.base_model for stage in reversed(self.trained) if stage.result.base_model), "")

    @property
    def began_with(self) -> str:
        """The model that the run began with: a repository, or the base of an sft without a pretraining."""
        first = self.trained[0]
        rows = first.result.inheritance
        return self.base_model or next((row.base for row in rows if row.key == "weights"), "")

    @property
    def is_held_back(self) -> bool:
        return self.gate is not None and not self.gate.passed


def read_lineage(run: StageRun, model: str) -> Lineage:
    origin = run.origins.get("model", "")
    if model not in run.stages:
        known = " or ".join(trained_stages(run)) or "a run with a training stage"
        raise DataError(Problem(f"this run has no training stage {model!r}", "model", origin, known))
    trained = tuple(read_chain(run, model))
    upto, published = [stage.name for stage in trained], trained[-1]
    if published.export is None:
        result = published.result
        reason = export_refusal(result.model_name, result.model_args) or "it was trained without a tokenizer"
        raise DataError(Problem(f"{model} has no export: {reason}", "model", origin, "a model with an export"))
    manifest, night = Manifest.open(run.folder.parent), Night.read(run.folder.parent)
    folder = run.stages.get(run.config.get("evaluation") or "")
    return Lineage(
        experiment=run.experiment,
        run=run.run,
        model=model,
        export=published.export,
        trained=trained,
        git=manifest.git,
        evaluation=read_evaluated(folder, model, published.export, origin) if folder else None,
        datasets=prepared_datasets(run.folder.parent),
        kept={name: kept_keys(record) for name, record in manifest.stages.items() if record.kept},
        continues=night.parent if night else None,
        trained_on=tuple(one for one in run.trained_on if one.stage in upto),
    )


def read_chain(run: StageRun, model: str) -> list[TrainedStage]:
    """The finished training stages of a run that lead to a model, first the one that began with none of them."""
    last = read_trained(model, run.stages[model])
    base = last.run.base
    own = [name for name, folder in run.stages.items() if folder == base and folder.name == name]
    averaged = [*(part.stage for part in last.result.mean_of), *averaged_stages(last.run.config)]
    before = {one.name: one for name in dict.fromkeys([*own, *averaged]) for one in read_chain(run, name)}
    return [*before.values(), last]


def trained_stages(run: StageRun) -> list[str]:
    """The names of a run's training stages, as the run of another stage of it knows them."""
    return [name for name, folder in run.stages.items() if folder.name == name and Training.of(folder) is not None]


def kept_keys(record: StageRecord) -> list[str]:
    """The keys in which a stage differs from its config, without the names of the files behind them."""
    return list(dict.fromkeys(change.key.partition(": ")[0] for change in record.kept))


def evaluated_name(evaluation: EvaluateResult, model: str, export: Path, origin: str) -> str:
    """The evaluation's own name for the model; an evaluation chooses the names of the folders that it evaluates."""
    for name, folder in evaluation.folders.items():
        if folder.resolve() == export.resolve():
            return name
    if model in evaluation.digests:
        return model
    expected = " or ".join(evaluation.digests)
    hint = f"add {model} to the models of {evaluation.stage}, or publish one that was evaluated"
    raise DataError(Problem(f"{model} was not evaluated", "model", origin, expected, hint))


def read_trained(name: str, folder: Path) -> TrainedStage:
    check_finished(name, folder)
    run, result = finished_training(folder)
    # If a stage made no export itself, the evaluation makes it.
    later = folder / EXPORT_FOLDER
    export = result.export or (later if later.is_dir() else None)
    return TrainedStage(name, folder, run, result, export)


def read_evaluated(folder: Path, model: str, export: Path, origin: str) -> EvaluatedStage:
    check_finished(folder.name, folder)
    result: Any = read_result(folder)
    tasks = folder / TASKS_FOLDER
    run = StageRun.read(folder / RUN_FILE)
    written = parse_yaml((folder / RUN_FILE).read_text(encoding="utf-8"))
    own = index(tasks)
    # The kept task files name the items by their place at the evaluation, which a moved run has left.
    items = (written.get("data") or {}).get("train")
    return EvaluatedStage(
        folder=folder,
        run=run,
        result=result,
        model=evaluated_name(result, model, export, origin),
        asked=asked_by({**run.config, "include_path": tasks if tasks.is_dir() else None}),
        own=frozenset([*own.tasks, *own.groups]),
        items=Path(items) if items else None,
    )


def check_finished(name: str, folder: Path) -> None:
    """Refuses a stage that hasn't finished, or whose ``run.yaml`` is gone."""
    if missing := [file for file in (RUN_FILE, RESULT_FILE) if not (folder / file).is_file()]:
        message, hint = f"{name} has not finished: it has no {missing[0]}", f"run {name} before publish"
        raise DataError(Problem(message, origin=str(folder), hint=hint))


def no_number(constant: str) -> None:
    """JSON has no NaN and no infinities: they become null."""


def lineage_json(lineage: Lineage, bundle: Bundle, signed_by: str = "") -> bytes:
    """The bytes of ``titanflow.json``; ``bundle`` is everything else that is published but the signature.

    ``signed_by`` is the fingerprint of the key that will sign it all.
    """
    stages = {stage.name: trained_json(stage) for stage in lineage.trained}
    evaluated = lineage.evaluation
    if evaluated is not None:
        evaluation = json.loads(evaluated.result.model_dump_json(include=EVALUATE_FIELDS), parse_constant=no_number)
        evaluation["digests"] = {model: publishable(found) for model, found in evaluation["digests"].items()}
        stages["evaluate"] = {
            "stage": evaluated.run.stage,
            "fingerprint": evaluated.run.fingerprint,
            "trackers": tracked_ids(evaluated.result.trackers),
            **evaluation,
        }
    content: dict[str, Any] = {
        "titanflow": __version__,
        "git": lineage.git,
        "experiment": lineage.experiment,
        "run": lineage.run,
        "model": lineage.model,
        "evaluated_as": evaluated.model if evaluated else "",
        "stages": stages,
        **({"continues": lineage.continues.model_dump(exclude={"checkpoint"})} if lineage.continues else {}),
        **({"kept": lineage.kept} if lineage.kept else {}),
        **greedy_json(lineage),
        **gate_json(lineage),
        **({"gguf": {name: proof.model_dump() for name, proof in lineage.gguf.items()}} if lineage.gguf else {}),
        **({"signed_by": signed_by} if signed_by else {}),
        "files": {name: entry.sha256 for name, entry in sorted(bundle.items())},
    }
    return seal(content)


def gate_json(lineage: Lineage) -> dict[str, Any]:
    decision = lineage.gate and json.loads(lineage.gate.model_dump_json(), parse_constant=no_number)
    return {key: value for key, value in (("gate", decision), ("last", lineage.last)) if value is not None}


def greedy_json(lineage: Lineage) -> dict[str, Any]:
    """The published model's greedy answer to a prompt, in token ids, if it was evaluated."""
    evaluated = lineage.evaluation
    said = evaluated.result.greedy.get(evaluated.model) if evaluated else None
    return {"greedy": said.model_dump()} if said else {}


def trained_json(stage: TrainedStage) -> dict[str, Any]:
    result = json.loads(stage.result.model_dump_json(include=TRAIN_FIELDS), parse_constant=no_number)
    result["export_digests"] = publishable(result["export_digests"])
    return {
        "fingerprint": stage.run.fingerprint,
        "data": stage.data,
        "config": hyperparameters(stage),
        "trackers": tracked_ids(stage.result.trackers),
        **result,
    }


def publishable(digests: dict[str, str]) -> dict[str, str]:
    """The digests of files that a bundle may hold; not even the names of others are published."""
    return {name: sha256 for name, sha256 in digests.items() if is_published(name)}


def hyperparameters(stage: TrainedStage) -> dict[str, Any]:
    """The settings that a card names; ``batch`` is the rows a step, None if unknown."""
    config = stage.run.config
    optimizer, training = config.get("optimizer") or {}, config.get("training") or {}
    lora = Lora.of(config)
    return {
        "lr": optimizer.get("lr"),
        "optimizer": optimizer.get("name"),
        "warmup_steps": (config.get("lr_scheduler") or {}).get("warmup_steps"),
        "batch": global_batch_size(config),
        "seed": (config.get("debug") or {}).get("seed"),
        "dtype": training.get("dtype"),
        "lora": asdict(lora) if lora.rank else None,
        "prefer": asdict(Prefer.of(config)) if stage.run.kind == "prefer" else None,
    }
