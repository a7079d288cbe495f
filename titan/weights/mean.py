"""The mean of models' weights: of finished stages, or of a stage's last checkpoints.

It is computed in fp64, tensor by tensor, from weights that lie in mapped files, so that its models may be larger than
memory. What comes of it is a folder as a finished training leaves it: it is exported, evaluated and published as any.
The best checkpoint of a stage is a mean of one model, and equal to it to the bit.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from titan.models.lora import merged_state
from titan.process.rank_store import told_by_all
from titan.weights.disk_tensors import DiskTensors
from titan.weights.native import load_native
from titan.weights.stage_model import TrainedModel, trained_model
from titanflow.common.digests import digest, file_digest
from titanflow.common.errors import DataError, Problem
from titanflow.config.means.recipe import Mean, base_mean
from titanflow.planning.begin import set_aside
from titanflow.planning.extension.schedule import Schedule
from titanflow.runs.checkpoints import complete_folders, flaw, is_due
from titanflow.runs.contract import RESULT_FILE, StageRun
from titanflow.runs.manifest import checkpoint_digest
from titanflow.runs.results import Averaged, TrainResult, result_of, write_result
from titanflow.runs.scores.best import Best, best_checkpoint, gone, kept_checkpoint, unknown_best, unscored
from titanflow.runs.training import Training, read_training


@dataclass(frozen=True)
class Part:
    """One of the averaged models: a finished stage at one of its checkpoints, and its weight."""

    training: Training
    step: int
    checkpoint: Path
    weight: float

    @property
    def name(self) -> str:
        return f"{self.training.run.stage} at step {self.step}"

    @property
    def record(self) -> Averaged:
        run = self.training.run
        return Averaged(
            stage=run.stage, step=self.step, digest=file_digest(run.folder / RESULT_FILE), weight=self.weight
        )

    @property
    def model(self) -> TrainedModel:
        return trained_model(self.training, self.checkpoint)


def make_mean(name: str, mean: Mean, stages: Mapping[str, Path], folder: Path) -> TrainResult | None:
    """Makes the mean of a run's stages in ``folder``, unless it is there; returns what was made.

    Raises:
        DataError: a stage hasn't finished, lacks a checkpoint or a score to choose by, or the models are unlike.
    """
    best = _best(mean, stages) if mean.by else None
    parts = parts_of(mean, stages, best)
    made = [part.record for part in parts]
    before = result_of(folder) if folder.is_dir() else None
    if isinstance(before, TrainResult) and (before.mean_of, before.best) == (made, best):
        return None
    if best is not None and flaw(parts[0].checkpoint):
        raise DataError(gone(parts[0].training.run, best))
    check_alike(parts)
    if before is not None and not (isinstance(before, TrainResult) and before.mean_of):
        # A stage had this name once.
        set_aside(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first, result = parts[0].training.run, _result(parts[0])
    step = max(part.step for part in parts)
    checkpoint = folder / "checkpoint" / f"step-{step}"
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch:
        disk = DiskTensors(Path(scratch))
        state = mean_of([(part.model, part.weight) for part in parts], disk)
        dtypes = stored_dtypes(parts[0].model.weights.whole)
        kept = {key: value for key, value in state.items() if key in dtypes} if dtypes else state
        whole = {key: disk.copied(value, dtypes.get(key, torch.float32)) for key, value in kept.items()}
        dcp.save(whole, checkpoint_id=checkpoint, no_dist=True)
    # Adapters are merged into what they were trained beside.
    config = {**first.config, **({"lora": {**lora, "rank": 0}} if (lora := first.config.get("lora")) else {})}
    fingerprint = digest([part.model_dump() for part in made])
    own = {"stage": name, "folder": folder, "fingerprint": fingerprint, "config": config}
    first.model_copy(update=own, deep=True).write()
    changes: dict[str, Any] = {"stage": name, "checkpoint": checkpoint, "step": step, "mean_of": made}
    changes |= dict.fromkeys(("first_loss", "loss", "validation_loss", "export", "adapter", "trainable_parameters"))
    changes |= {"export_digests": {}, "parity": {}, "trackers": {}}
    # Nothing was trained here. Of a best checkpoint each step had as many tokens.
    changes |= {"tokens": result.tokens * step // result.step if best else 0, "seconds": 0.0, "best": best}
    changes |= dict.fromkeys(("tokens_per_second", "peak_memory_bytes"))
    # Of models each of which may have had a moving mean of its own.
    changes |= {} if best else {"ema": None}
    written = result.model_copy(update=changes)
    write_result(folder, written)
    return written


def begin_with_mean(run: StageRun) -> None:
    """Makes the mean that a training starts from, if it does, and has its ``run.yaml`` name it as the base.

    All ranks call it; the first one makes it. Until then the base is the first of the models.
    """
    mean = base_mean(run.config)
    if mean is None:
        return
    # No module's name has a dot.
    folder, is_first = run.folder.with_name(f"{run.stage}.base"), os.environ.get("RANK", "0") == "0"
    if is_first:
        make_mean(folder.name, mean, run.stages, folder)
    told_by_all("mean", "")
    run.base, run.base_digest = folder, checkpoint_digest(_result_of(read_training(folder)).checkpoint)
    if is_first:
        run.write()


def unscored_steps(mean: Mean, stages: Mapping[str, Path]) -> dict[int, str]:
    """The checkpoints that can't be the best of a stage since they have no score, by step, and why."""
    return unscored(read_training(stages[mean.stages[0]]).run, mean.by) if mean.by else {}


def _best(mean: Mean, stages: Mapping[str, Path]) -> Best:
    training = read_training(stages[mean.stages[0]])
    _result_of(training)
    best = best_checkpoint(training.run, mean.by)
    if best is None:
        raise DataError(unknown_best(training.run, mean.by))
    return best


def parts_of(mean: Mean, stages: Mapping[str, Path], best: Best | None = None) -> list[Part]:
    """The models that a recipe averages; the one that is the ``best``.

    Raises:
        DataError: a stage hasn't finished, or has fewer checkpoints.
    """
    trainings = [read_training(stages[stage]) for stage in mean.stages]
    if best is not None:
        (training,) = trainings
        return [Part(training, best.step, kept_checkpoint(training.run, best.step), 1.0)]
    if not mean.last:
        results = [_result_of(training) for training in trainings]
        return [
            Part(training, result.step, result.checkpoint, weight)
            for training, result, weight in zip(trainings, results, mean.weights, strict=True)
        ]
    (training,) = trainings
    last, folder = _result_of(training).step, training.run.folder / "checkpoint"
    saving, kept_step = training.run.config["checkpoint"], Schedule.of(training.run.config).kept_step
    # Those of an interruption, or of an earlier end, have no part: an uninterrupted run doesn't have them.
    wanted = (one for one in complete_folders(folder) if one[0] == last or is_due(one[0], saving, kept_step))
    found = [(step, path) for step, path in wanted if step <= last][: mean.last]
    if len(found) < mean.last:
        message, hint = (
            f"found {len(found)} complete checkpoints",
            f"{training.run.stage}.checkpoint.keep_latest_k: {mean.last}",
        )
        raise DataError(Problem(message, origin=str(folder), expected=f"the last {mean.last}", hint=hint))
    weighed = zip(reversed(found), mean.weights, strict=True)
    return [Part(training, step, path, weight) for (step, path), weight in weighed]


def mean_of(models: Sequence[tuple[TrainedModel, float]], disk: DiskTensors) -> dict[str, torch.Tensor]:
    """The weighted sum of models' whole weights by native name, in fp64; LoRA's adapters are merged before.

    Integers, such as counters, are the last model's. Between models nothing but the sum is kept.
    """
    total: dict[str, torch.Tensor] = {}
    for model, weight in models:
        for key, value in merged_state(load_native(model, disk), disk.stored).items():
            if not value.is_floating_point():
                total[key] = value
            else:
                part = disk.copied(value, torch.float64).mul_(weight)
                total[key] = total[key].add_(part) if key in total else part
    return total


def stored_dtypes(checkpoint: Path) -> dict[str, torch.dtype]:
    """The type of each tensor of a ``step-N`` folder; nothing for another folder."""
    if not (checkpoint / ".metadata").is_file():
        return {}
    stored = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {key: item.properties.dtype for key, item in stored.items() if isinstance(item, TensorStorageMetadata)}


def check_alike(parts: Sequence[Part]) -> None:
    """Refuses models whose weights or tokens mean different things.

    Raises:
        DataError: they do.
    """
    first, result = parts[0], _result(parts[0])
    for part in parts[1:]:
        for what, mine, theirs in _compared(result, _result(part)):
            if mine != theirs:
                found = f"{first.name} and {part.name} are unlike: {what} is {mine} and {theirs}"
                raise DataError(Problem(found, origin=str(part.training.run.folder), expected="models of one kind"))


def _compared(mine: TrainResult, theirs: TrainResult) -> Iterator[tuple[str, Any, Any]]:
    yield "the family", mine.model_name, theirs.model_name
    yield "the number of parameters", mine.parameters, theirs.parameters
    yield "the digest of the tokenizer", mine.tokenizer_digest, theirs.tokenizer_digest


def _result(part: Part) -> TrainResult:
    return _result_of(part.training)


def _result_of(training: Training) -> TrainResult:
    if training.result is None:
        found, folder = "a stage that hasn't finished", training.run.folder
        raise DataError(Problem(found, origin=str(folder), expected=f"a stage with {RESULT_FILE}"))
    return training.result
