"""A training stage of any kind: ``torchrun … -m titan.train.train <run.yaml>``.

Reads ``run.yaml``, trains with torchtitan, exports, and writes ``result.json``; a failure leaves ``error.json``.
On SIGTERM the present step is saved and the process exits with 143; the same command goes on from there.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, cast

from titan.process.compile_cache import keep_compiled
from titan.process.interrupt import Interruption, leave
from titan.process.open_files import allow_all_files
from titan.process.own_job import end_with_job
from titan.process.quiet import quiet_torchtitan
from titan.tracking.model_record import record_model
from titan.tracking.wandb_run import end_open_run
from titan.train.inheritance import check_inheritance, inherited_args
from titanflow.architectures.base import BaseArchitecture, begins_with, tokenizer_digest
from titanflow.architectures.hf_snapshot import repository_of
from titanflow.architectures.outside_base import read_base
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.means.recipe import base_mean
from titanflow.runs.checkpoints import complete_folders, damage
from titanflow.runs.contract import EXPORT_FOLDER, INTERRUPTED_EXIT, METRICS_FILE, RESULT_FILE, StageRun, TrainedKind
from titanflow.runs.errors import ERROR_FILE, StageError, record_failure
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import NOT_INHERITED, InheritanceRow, TrainResult, write_result
from titanflow.runs.torchrun import attempt, end_with_torchrun
from titanflow.runs.training import Training

if TYPE_CHECKING:
    from torchtitan.config import JobConfig
    from torchtitan.protocols.train_spec import TrainSpec

LAST_STEPS = 10
"""How many logged steps ``TrainResult.loss`` is the mean of."""
VERSIONS = ("titanflow", "torch", "torchtitan", "transformers", "datasets", "numpy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the stage and ends the process: 0, 2 for bad input, 1 for a failure, 143 if it was interrupted."""
    interruption = Interruption()
    interruption.listen()
    end_with_torchrun()
    allow_all_files()
    # Imports leave no garbage, but scanning what they make would take a sixth of the start.
    gc.disable()
    (path,) = (Path(argument) for argument in (sys.argv[1:] if arguments is None else arguments))
    end_with_job(path.parent)
    remove_stale(path.parent)
    try:
        status = run_stage(StageRun.read(path), interruption)
    except BaseException as error:
        # First the failure, because ending W&B's run may take a minute, or be killed.
        status = record_failure(path.parent, error, rank())
        end_open_run()
    leave(status)


def remove_stale(folder: Path) -> None:
    """Removes an earlier attempt's outcome.

    By the attempt's own name, and not by times: other machines wrote those, by clocks of their own.
    """
    if rank() == 0:
        (folder / RESULT_FILE).unlink(missing_ok=True)
    error = StageError.of(folder)
    if error is None or error.attempt != attempt():
        (folder / ERROR_FILE).unlink(missing_ok=True)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def run_stage(run: StageRun, interruption: Interruption) -> int:
    """Trains what is left to train, then exports and writes the result; returns the exit status."""
    from titan.process.peak_memory import peak_memory_bytes
    from titan.train.local_rows import bring_rows

    if base_mean(run.config) is not None:
        from titan.weights.mean import begin_with_mean

        begin_with_mean(run)
    base = read_base(run.base) if run.base else None
    table = check_inheritance(base, run) if base else []
    run.tokenizer = run.tokenizer or (base.tokenizer if base else None)
    # Before torch is asked for its folder, which it then keeps.
    if (run.config.get("compile") or {}).get("enable"):
        keep_compiled(run)
    job_config, spec = prepare(run, base)
    if rank() == 0 and base:
        print(f"{run.stage} starts from {base.stage}:", *table, NOT_INHERITED, sep="\n", flush=True)
    peak = None
    if not is_trained(job_config):
        bring_rows(run)
        finished = train(run, job_config, interruption)
        if interruption.requested or not finished:
            end_open_run()
            return INTERRUPTED_EXIT
        # Before the export, whose memory isn't the training's.
        peak = peak_memory_bytes()
    if rank() == 0:
        finish(run, job_config, spec, table, peak)
    return 0


def prepare(run: StageRun, base: BaseArchitecture | None) -> tuple[JobConfig, TrainSpec]:
    """Patches torchtitan, and builds the stage's config and ``TrainSpec``."""
    from titan.models.custom_family import import_custom
    from titan.models.registry import MODEL_PATCHES, model_args_from
    from titan.patches import PatchContext, apply_patches
    from titan.train.job_config import apply_stage_defaults, build_job_config

    apply_patches([*MODEL_PATCHES, "tied_fsdp", "peak_flops", "lone_checkpoint"])
    from torchtitan.protocols import train_spec
    from torchtitan.tools.logging import init_logger

    from titan.train.train_spec import check_model, stage_train_spec
    from titan.weights.hf_folder import check_hf_weights

    init_logger()
    quiet_torchtitan()
    job_config = build_job_config(run)
    apply_stage_defaults(job_config, run, base)
    import_custom(run)
    overrides = inherited_args(base, run) if base else run.model_overrides

    adapt = partial(stage_train_spec, run=run, job_config=job_config, overrides=overrides)
    apply_patches(["train_spec"], PatchContext(job_config.model.name, adapt))
    try:
        spec = train_spec.get_train_spec(job_config.model.name)
    except ValueError as error:
        raise ConfigError(run.placed([Problem(str(error), "model.name")])) from error
    check_model(spec, run, job_config)
    if base is not None and base.in_hf and base.checkpoint is not None:
        check_hf_weights(base.checkpoint, spec, model_args_from(base.model_name, base.model_args))
    return job_config, spec


def is_trained(job_config: JobConfig) -> bool:
    """Whether nothing is left to train: an undamaged checkpoint holds the last step, which is validated."""
    from titan.process.rank_store import told_by_all
    from titan.weights.checkpoint import complete_checkpoints

    folder, steps = Path(job_config.job.dump_folder), job_config.training.steps
    newest = next(complete_checkpoints(folder / job_config.checkpoint.folder), None)
    if newest is None or newest.step < steps:
        return False
    # Each rank reads a part: a checkpoint may be terabytes.
    if any(told_by_all("damage", damage(newest.path, rank(), ranks()))):
        return False
    if not (newest.full and job_config.validation.enable and steps % job_config.validation.freq == 0):
        return True
    # A stage that was killed between its last save and that validation has to catch up on it.
    records = read_metrics(folder / METRICS_FILE)
    return any("validation_loss" in record for record in records if record["step"] == steps)


def train(run: StageRun, job_config: JobConfig, interruption: Interruption) -> bool:
    """Trains to the end; returns False if it was interrupted, with the current step saved."""
    import torch.distributed as dist

    from titan.train.prefer.trainer import PreferenceTrainer
    from titan.train.trainer import Trainer

    # What was imported stays: to look through it took longer than to collect what a training leaves.
    gc.freeze()
    is_preference = run.kind == "prefer"
    trainer = PreferenceTrainer(job_config, interruption, run) if is_preference else Trainer(job_config, interruption)
    try:
        finished = trainer.train()
        if finished and rank() == 0:
            trainer.metrics_processor.complete()
    finally:
        trainer.close()
    dist.destroy_process_group()
    interruption.release()
    # The export needs the memory of model and optimizer, and torchtitan turned the collector off.
    del trainer
    gc.enable()
    gc.collect()
    return finished


def finish(
    run: StageRun,
    job_config: JobConfig,
    spec: TrainSpec,
    table: list[InheritanceRow],
    peak_memory: int | None = None,
) -> None:
    """Exports the last checkpoint if the family has an export, tells the trackers, and writes ``result.json``."""
    from titan.models.huggingface import refusal
    from titan.models.lora import trainable_parameters
    from titan.train.train_spec import describe_model

    step, checkpoint = next(complete_folders(run.folder / job_config.checkpoint.folder))
    model_args, parameters = describe_model(spec, job_config)
    trainable = trainable_parameters(spec, job_config) if job_config.lora.rank else None
    result = TrainResult(
        stage=run.stage,
        kind=cast(TrainedKind, run.kind),
        checkpoint=checkpoint,
        step=step,
        model_name=job_config.model.name,
        flavor=job_config.model.flavor,
        model_args=model_args,
        parameters=parameters,
        trainable_parameters=trainable,
        peak_memory_bytes=peak_memory,
        seq_len=job_config.training.seq_len,
        ema=job_config.training.ema,
        tokenizer=run.tokenizer,
        tokenizer_digest=tokenizer_digest(run.tokenizer),
        inheritance=table,
        base_model=repository_of(begun) if (begun := begins_with(run)) else "",
        versions={name: version(name) for name in VERSIONS},
        **summarize(read_metrics(run.folder / METRICS_FILE)),
    )
    reason = refusal(result.model_name, model_args) or ("" if run.tokenizer else "there is no tokenizer")
    if reason:
        print(f"no export: {reason}", flush=True)
    else:
        result = result.model_copy(update=export(run, checkpoint))
    result.trackers = record_model(run, result)
    write_result(run.folder, result)


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    trained = [record for record in records if "loss" in record]
    validated = [record["validation_loss"] for record in records if "validation_loss" in record]
    if not trained:
        return {}
    return {
        "first_loss": trained[0]["loss"],
        "loss": fmean(record["loss"] for record in trained[-LAST_STEPS:]),
        "validation_loss": validated[-1] if validated else None,
        "tokens": trained[-1]["tokens"],
        "seconds": max(record["seconds"] for record in records),
        "tokens_per_second": median(record["tokens_per_second"] for record in trained),
    }


def export(run: StageRun, checkpoint: Path) -> dict[str, Any]:
    from titan.export.export import export_model
    from titan.export.peft_adapter import ADAPTER_FOLDER, write_peft_adapter
    from titan.weights.stage_model import trained_model

    model = trained_model(Training(run), checkpoint)
    exported = export_model(model, run.folder / EXPORT_FOLDER)
    fields = {"export": exported.folder, "export_digests": exported.digests, "parity": exported.parity}
    if any(adapter.settings.peft_adapter for adapter in model.weights.adapters[-1:]):
        fields["adapter"] = write_peft_adapter(model, run.folder / ADAPTER_FOLDER)
    return fields


if __name__ == "__main__":
    main()
