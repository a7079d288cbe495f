"""A stage's data and models, read and made, as a tracker's artifacts: lineage by name and digest."""

from __future__ import annotations

import re
from pathlib import Path

from titanflow.architectures.base import begins_with
from titanflow.architectures.hf_snapshot import repository_of
from titanflow.common.digests import digest
from titanflow.data.dataset_info import is_complete, read_facts
from titanflow.runs.contract import RUN_FILE, StageRun
from titanflow.runs.results import ArtifactRecord, EvaluateResult, TrainResult
from titanflow.runs.training import Training

LONGEST_NAME = 128


def used_artifacts(run: StageRun) -> list[ArtifactRecord]:
    data = [dataset_artifact(folder) for folder in (run.data.train, run.data.validation) if folder]
    begun = begins_with(run)
    return [*data, *([base_artifact(begun)] if begun else [])]


def evaluated_artifacts(result: EvaluateResult) -> list[ArtifactRecord]:
    """The evaluated models; an export or a checkpoint stands for the stage whose folder it lies in."""
    return [
        base_artifact(next((above for above in folder.parents[:2] if (above / RUN_FILE).is_file()), folder))
        for folder in result.folders.values()
    ]


def dataset_artifact(folder: Path) -> ArtifactRecord:
    """Prepared rows, whose fingerprint is their digest."""
    described = read_facts(folder) if is_complete(folder) else {}
    name, fingerprint = described.get("name", folder.name), described.get("fingerprint", "")
    return ArtifactRecord(
        name=_name(name),
        type="dataset",
        digest=fingerprint,
        reference=folder.resolve().as_uri(),
        aliases=_aliases(fingerprint),
    )


def base_artifact(folder: Path) -> ArtifactRecord:
    """The model of a finished stage, of a repository's snapshot, or of any other folder."""
    if (training := Training.of(folder)) is not None and training.result is not None:
        return model_artifact(training.run, training.result)
    if repository := repository_of(folder):
        commit = folder.resolve().name
        reference = f"https://huggingface.co/{repository}/tree/{commit}"
        return ArtifactRecord(name=_name(repository), type="model", digest=commit, reference=reference)
    return ArtifactRecord(name=_name(folder.name), type="model", reference=folder.resolve().as_uri())


def model_artifact(run: StageRun, result: TrainResult) -> ArtifactRecord:
    """A training stage's export, or its checkpoint if there is none."""
    return ArtifactRecord(
        name=_name(f"{run.experiment}-{run.stage}"),
        type="model",
        digest=digest(result.export_digests) if result.export else run.fingerprint,
        reference=(result.export or result.checkpoint).resolve().as_uri(),
        aliases=_aliases(run.run, f"step-{result.step}"),
    )


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:LONGEST_NAME]


def _aliases(*texts: str) -> list[str]:
    return [_name(text) for text in texts if text]
