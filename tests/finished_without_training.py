"""A run whose stages left what stages leave, without one of them having run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import finished_stage

from titanflow.common.files import write_text_atomically
from titanflow.planning.begin import begin_stage, record_start
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import PrepareResult, PublishResult, StageResult, write_result

STEP = 8


def finish(
    configs: Path,
    experiment: str = "tiny",
    run: str | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    upto: str = "publish",
) -> Plan:
    """Plans a run and leaves each stage as if it had finished, the last being ``upto``; the plan it was made by."""
    plan = make_plan(experiment, configs, run, overrides)
    manifest = Manifest.open(plan.folder)
    for stage in plan.stages:
        if stage.state != "CACHED":
            finish_stage(stage, manifest)
        if stage.stage == upto:
            break
    return plan


def finish_stage(stage: StagePlan, manifest: Manifest) -> None:
    """What a stage's task does, with its outputs written here."""
    begin_stage(stage)
    record_start(stage, manifest)
    result = _outputs(stage)
    write_result(stage.run.folder, result)
    manifest.record_finish(stage.run, result)


def interrupt(stage: StagePlan, manifest: Manifest) -> None:
    """A training that began, saved once, and was killed."""
    begin_stage(stage)
    record_start(stage, manifest)
    write_checkpoint(stage.run.folder)


def write_checkpoint(folder: Path) -> Path:
    """A complete checkpoint below a stage's folder."""
    return finished_stage.write_checkpoint(folder / "checkpoint" / f"step-{STEP}")


def _outputs(stage: StagePlan) -> StageResult:
    run, folder = stage.run, stage.run.folder
    if stage.kind == "prepare":
        for part in (run.config["tokenizer"], *run.config["datasets"]):
            Path(part["folder"]).mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (Path(run.config["tokenizer"]["folder"]) / name).write_text("{}")
        return PrepareResult(datasets={dataset["folder"]: {} for dataset in run.config["datasets"]})
    if stage.run.trains:
        write_text_atomically(folder / "export" / "model.safetensors", "exported")
        write_checkpoint(folder)
        return finished_stage.train_result(
            folder,
            stage=stage.stage,
            kind=stage.kind,
            step=STEP,
            model_name=run.config["model"]["name"],
            flavor=run.config["model"]["flavor"],
            seq_len=48,
            tokenizer=run.tokenizer,
            export=folder / "export",
            export_digests={"model.safetensors": ""},
        )
    if stage.kind == "evaluate":
        (folder / "samples_sft_tiny_colour.jsonl").write_text("{}\n")
        return finished_stage.evaluate_result()
    return PublishResult(target="folder", location=str(folder / "model"))
