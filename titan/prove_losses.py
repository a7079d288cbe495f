"""Whether a finished training learnt as an independent implementation does: transformers' model, from the same weights,
on the same batches, with the same optimizer and schedule.

``python -m titan.prove_losses STAGE_FOLDER`` ends with 0 where the losses are equal within :data:`TOLERANCE`, with 1
where they aren't, and with 2 where the two can't be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.config.mixture import packs_rows
from titanflow.config.yaml_source import flatten
from titanflow.errors import ConfigError, DataError, Problem, TitanflowError
from titanflow.families import PARAMETER_GROUPS
from titanflow.hf_base import is_hugging_face
from titanflow.metrics_lines import read_metrics
from titanflow.results import TrainResult, read_result
from titanflow.stage import METRICS_FILE, RESULT_FILE, RUN_FILE, StageRun

if TYPE_CHECKING:
    import torch
    from torchtitan.config import JobConfig

TOLERANCE = 1e-4
"""Bound on the difference of two losses, in nats per token, over some fifty steps: right models were within 5e-6. A
learning rate that is too high for a model amplifies rounding, and parts two right ones as well."""
SHOWN = 10
"""Steps that are shown."""
PLAIN: Mapping[str, tuple[Any, str]] = {
    "training.mixed_precision_param": ("float32", "rounding to less differs between any two implementations"),
    "lora.rank": (0, "transformers' model has no adapters"),
    "data.streaming": (False, "a stream's rows can't be read a second time by themselves"),
}
"""What a stage's config has to say, and why."""


@dataclass(frozen=True)
class Losses:
    """The loss of a step in nats per token: the stage's own, and that of transformers' model."""

    step: int
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Between the two, never negative; NaN where one of them is."""
        return abs(self.ours - self.theirs)


def prove_losses(folder: Path) -> list[Losses]:
    """Trains transformers' model as a finished stage was trained; both losses of each logged step.

    Raises:
        DataError: the folder is no finished training stage's.
        ConfigError: the stage didn't begin with weights that transformers loads, or trains something that transformers'
            model doesn't compute.
    """
    result = read_result(folder) if (folder / RESULT_FILE).is_file() else None
    if not isinstance(result, TrainResult):
        raise DataError(Problem(f"no {RESULT_FILE} of a training", origin=str(folder), expected="a finished stage"))
    run = StageRun.read(folder / RUN_FILE)
    if problems := _problems(run, result):
        raise ConfigError(problems)
    ours = {one["step"]: one["loss"] for one in read_metrics(folder / METRICS_FILE) if "loss" in one}
    return [Losses(step, ours[step], loss) for step, loss in _train(run, _beginning(run), result) if step in ours]


def _problems(run: StageRun, result: TrainResult) -> list[Problem]:
    """Why transformers' model can't be trained as the stage was."""
    config = flatten(run.config)
    problems = [
        Problem(f"found {config[key]!r}: {why}", key, run.origins.get(key, ""), expected=str(wanted))
        for key, (wanted, why) in PLAIN.items()
        if config.get(key, wanted) != wanted
    ]
    if result.model_name in PARAMETER_GROUPS:
        why = f"{result.model_name} chooses tokens otherwise in training than its export does"
        problems.append(Problem(why, "model.name", expected="a family that computes the same in both"))
    if packs_rows(run.config.get("data") or {}):
        problems.append(
            Problem("transformers' attention sees across a row's documents", "data.packing", expected="null")
        )
    arguments = flatten(result.model_args)
    dropped = [key for key, value in arguments.items() if "dropout" in key and value]
    problems += [Problem("the two drop other numbers", f"model.{key}", expected="0") for key in dropped]
    if arguments.get("moe_args.load_balance_coeff") and arguments.get("moe_enabled", True):
        why = "training moves a bias of the experts that transformers leaves as it is"
        problems.append(Problem(why, "model.moe_args.load_balance_coeff", expected="null"))
    return problems


def _beginning(run: StageRun) -> Path:
    """The folder that transformers loads of what the stage began with: weights of its format, or a base's export."""
    checkpoint = run.config.get("checkpoint") or {}
    named = run.base or (checkpoint.get("initial_load_in_hf") and checkpoint.get("initial_load_path"))
    folder = Path(named) if named else None
    if folder is not None and not is_hugging_face(folder) and (folder / RESULT_FILE).is_file():
        base = read_result(folder)
        folder = base.export if isinstance(base, TrainResult) else None
    if folder is not None and is_hugging_face(folder):
        return folder
    raise ConfigError(
        Problem(
            f"{run.folder} began with {named or 'weights that it drew'}, which transformers doesn't load",
            key="checkpoint.initial_load_in_hf",
            expected="true, and checkpoint.initial_load_path: a folder that transformers loads",
            hint="titanflow export STAGE FOLDER writes one of any checkpoint; begin another training with it",
        )
    )


def _train(run: StageRun, beginning: Path, result: TrainResult) -> Iterator[tuple[int, float]]:
    """The loop that everybody writes: its only parts of torchtitan's are what builds optimizer and schedule."""
    import torch
    from torch.nn.functional import cross_entropy
    from torchtitan.components.loss import IGNORE_INDEX
    from torchtitan.components.lr_scheduler import build_lr_schedulers
    from torchtitan.components.optimizer import build_optimizers

    from titan.hf_load import load_folder
    from titan.job_config import build_job_config

    config = build_job_config(run)
    model = load_folder(beginning, torch.float32)[0].train()
    optimizers = build_optimizers([model], config.optimizer, None)
    schedulers = build_lr_schedulers(optimizers, config.lr_scheduler, config.training.steps)
    for step, batch in zip(range(1, result.step + 1), _batches(run, config, result), strict=False):
        loss, tokens = 0.0, sum(int((labels != IGNORE_INDEX).sum()) for _, labels in batch)
        for inputs, labels in batch if tokens else ():
            logits = model(input_ids=inputs["input"], use_cache=False).logits
            part = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / tokens
            part.backward()
            loss += part.item()
        if tokens:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.max_norm)
            optimizers.step()
            optimizers.zero_grad()
            yield step, loss
        schedulers.step()


def _batches(
    run: StageRun, config: JobConfig, result: TrainResult
) -> Iterator[list[tuple[dict[str, torch.Tensor], torch.Tensor]]]:
    """The global batch of each step, in pieces of the stage's local one."""
    from titan.dataloader import MockRows, PreparedDataLoader
    from titanflow.config.batch import global_batch_size
    from titanflow.data.mixture import open_rows

    training, rows = config.training, global_batch_size(run.config)
    assert rows is not None
    if not training.mock_data and run.data.train is None:
        raise ConfigError(Problem("the stage read no prepared rows", "data", expected="data that is prepared"))
    loader = PreparedDataLoader(
        open_rows(run.data.train, result.seq_len)
        if run.data.train
        else MockRows(result.model_args["vocab_size"], result.seq_len),
        local_batch_size=training.local_batch_size if rows % training.local_batch_size == 0 else rows,
        global_batch_size=rows,
        rank=0,
        ranks=1,
        seed=config.debug.seed or 0,
        skip_rows=training.skip_rows,
    )
    pieces = iter(loader)
    while True:
        yield [next(pieces) for _ in range(loader.accumulation)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    from titan.quiet import quiet_transformers

    parser = argparse.ArgumentParser(prog="python -m titan.prove_losses", description=__doc__)
    parser.add_argument("stage", type=Path, help="the folder of a finished pretraining or fine-tuning")
    given = parser.parse_args(arguments)
    quiet_transformers()
    try:
        losses = prove_losses(given.stage.absolute())
    except TitanflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return show(losses)


def show(losses: Sequence[Losses]) -> int:
    """Prints some steps and the largest difference; 0 where that is within :data:`TOLERANCE`, otherwise 1."""
    print(f"{'step':>6} {'stage':>10} {'transformers':>12} {'difference':>10}")
    for one in losses[:: max(1, len(losses) // SHOWN)]:
        print(f"{one.step:>6} {one.ours:>10.5f} {one.theirs:>12.5f} {one.difference:>10.1e}")
    apart = [one for one in losses if not one.difference <= TOLERANCE]
    worst = max(losses, key=lambda one: one.difference)
    print(f"{len(losses)} steps, the largest difference is {worst.difference:.1e} nats per token, at step {worst.step}")
    print(f"the losses differ from step {apart[0].step} on" if apart else f"equal within {TOLERANCE:g}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
