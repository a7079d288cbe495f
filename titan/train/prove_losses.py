"""Whether a finished training learnt as an independent implementation does: transformers' model, from the same weights,
on the same batches, with the same optimizer and schedule.

``python -m titan.train.prove_losses STAGE_FOLDER`` ends with 0 where the losses are equal within :data:`TOLERANCE`,
with 1 where they aren't, and with 2 where the two can't be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.architectures.base import begins_with
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.huggingface import check_weights_there, is_hugging_face
from titanflow.common.errors import ConfigError, DataError, Problem, TitanflowError
from titanflow.config.keys.optimizer import MUON
from titanflow.config.mixture import packs_rows
from titanflow.files.yaml_source import flatten
from titanflow.runs.contract import METRICS_FILE, RESULT_FILE, StageRun
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import TrainResult
from titanflow.runs.training import finished_training

if TYPE_CHECKING:
    from torchtitan.config import JobConfig

    from titan.train.dataloader import Batch

TOLERANCE = 1e-4
"""Bound on the difference of two losses, in nats per token, over some fifty steps: equal models were within 5e-6. A
learning rate that is too high for a model amplifies rounding, and drives equal models apart too."""
SHOWN = 10
ROUNDS = "rounding to less differs between any two implementations"
PLAIN: Mapping[str, tuple[Any, str]] = {
    "training.dtype": ("float32", ROUNDS),
    "training.mixed_precision_param": ("float32", ROUNDS),
    "optimizer.early_step_in_backward": (False, "weights are stepped before the gradients' norm is known"),
    "model.converters": ([], "they change what a layer computes"),
    "lora.rank": (0, "transformers' model has no adapters"),
    "data.streaming": (False, "a stream's rows can't be read a second time by themselves"),
}
"""The values that a stage's config must have, and why."""


@dataclass(frozen=True)
class Losses:
    """The loss of a step in nats per token: the stage's own, and that of transformers' model."""

    step: int
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        return abs(self.ours - self.theirs)


def prove_losses(folder: Path) -> list[Losses]:
    """Trains transformers' model as a finished stage was trained; returns both losses of each logged step."""
    run, result = finished_training(folder)
    if problems := _problems(run, result):
        raise ConfigError(run.placed(problems))
    beginning = _beginning(run)
    ours = {one["step"]: one["loss"] for one in read_metrics(folder / METRICS_FILE) if "loss" in one}
    if not ours:
        message = f"{METRICS_FILE} has no loss: nothing can be compared"
        raise DataError(Problem(message, origin=str(folder), expected="a line for each logged step"))
    return [Losses(step, ours[step], loss) for step, loss in _train(run, beginning, result) if step in ours]


def _problems(run: StageRun, result: TrainResult) -> list[Problem]:
    """Why transformers' model can't be trained as the stage was."""
    config = flatten(run.config)
    problems = [
        Problem(f"found {config[key]!r}: {why}", key, expected=str(wanted))
        for key, (wanted, why) in PLAIN.items()
        if config.get(key, wanted) != wanted
    ]
    if result.model_name in PARAMETER_GROUPS:
        why = f"{result.model_name} chooses tokens otherwise in training than its export does"
        problems.append(Problem(why, "model.name", expected="a family that computes the same in both"))
    if run.kind == "prefer":
        found = "a preference's loss is that of pairs, which transformers' model doesn't compute"
        problems.append(Problem(found, "data.kind", expected="text or chat"))
    if config.get("optimizer.name") == MUON:
        found = "Muon rounds each step to bfloat16, and transformers' weights lie in other rows"
        problems.append(Problem(found, "optimizer.name", expected="AdamW or Adam"))
    if packs_rows(run.config.get("data") or {}):
        problems.append(
            Problem("transformers' attention sees across a row's documents", "data.packing", expected="null")
        )
    arguments = flatten(result.model_args)
    dropped = [key for key, value in arguments.items() if "dropout" in key and value]
    problems += [
        Problem("dropout draws other random numbers in the two models", f"model.{key}", expected="0") for key in dropped
    ]
    if arguments.get("moe_args.load_balance_coeff") and arguments.get("moe_enabled", True):
        why = "training moves a bias of the experts that transformers leaves as it is"
        problems.append(Problem(why, "model.moe_args.load_balance_coeff", expected="null"))
    return problems


def _beginning(run: StageRun) -> Path:
    """The folder from which transformers loads the stage's initial weights: its own format, or a base's export."""
    folder = named = begins_with(run)
    if folder is not None and not folder.is_dir():
        where = "" if folder.is_absolute() else f" (looked for it in {Path.cwd()})"
        expected = "the weights that the stage began with, where they were"
        key = "base" if run.base else "checkpoint.initial_load_path"
        raise ConfigError(run.placed([Problem(f"{folder} isn't there{where}", key, expected=expected)]))
    if folder is not None and not is_hugging_face(folder) and (folder / RESULT_FILE).is_file():
        folder = finished_training(folder)[1].export
    if folder is not None and is_hugging_face(folder):
        check_weights_there(folder)
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
    """The usual training loop: of torchtitan it uses only what builds optimizer and schedule."""
    import torch
    from torch.nn.functional import cross_entropy
    from torchtitan.components.loss import IGNORE_INDEX
    from torchtitan.components.lr_scheduler import build_lr_schedulers
    from torchtitan.components.optimizer import build_optimizers

    from titan.train.job_config import build_job_config
    from titan.weights.hf_folder import load_folder

    config = build_job_config(run)
    # In inference mode, which turns off dropout alone: the stage has none, whatever its base's config.json says.
    model = load_folder(beginning, torch.float32)[0]
    # The stage also trains the padding token where rows hold it: it is often the end of text, too.
    model.get_input_embeddings().padding_idx = None
    found, wanted = model.config.vocab_size, result.model_args["vocab_size"]
    if found != wanted:
        message = f"found {found} in {beginning}, and the stage trained {wanted}"
        hint = "new tokens' rows are drawn, and transformers would draw others"
        raise ConfigError(Problem(message, "model.vocab_size", expected="one size for both", hint=hint))
    optimizers = build_optimizers([model], config.optimizer, None)
    schedulers = build_lr_schedulers(optimizers, config.lr_scheduler, config.training.steps)
    for step, batch in zip(range(1, result.step + 1), _batches(run, config, result), strict=False):
        loss, tokens = 0.0, sum(int((labels != IGNORE_INDEX).sum()) for _, labels in batch)
        for inputs, labels in batch:
            following, trained = inputs["input"][:, 1:], labels[:, :-1]
            # Both models would learn labels alike that aren't the following tokens.
            if ((trained != IGNORE_INDEX) & (trained != following)).any():
                message = f"a row of step {step} trains another token than the one that follows"
                raise DataError(Problem(message, expected="the token that follows, or none"))
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


def _batches(run: StageRun, config: JobConfig, result: TrainResult) -> Iterator[list[Batch]]:
    """The global batch of each step, in pieces of the stage's local batch size."""
    from titan.train.dataloader import MockRows, PreparedDataLoader
    from titanflow.config.batch import global_batch_size
    from titanflow.data.mixture import open_rows

    training, rows = config.training, global_batch_size(run.config)
    assert rows is not None
    if not training.mock_data and run.data.train is None:
        raise ConfigError(Problem("the stage read no prepared rows", "data", expected="data that is prepared"))
    loader = PreparedDataLoader(
        MockRows(result.model_args["vocab_size"], result.seq_len)
        if training.mock_data or run.data.train is None
        else open_rows(run.data.train, result.seq_len),
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
    from titan.process.quiet import quiet_transformers

    parser = argparse.ArgumentParser(prog="python -m titan.train.prove_losses", description=__doc__)
    parser.add_argument("stage", type=Path, help="the folder of a finished pretraining or fine-tuning")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    quiet_transformers()
    try:
        losses = prove_losses(given.stage.absolute())
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(as_json(losses), indent=2) if given.json else "\n".join(lines(losses)))
    return 1 if apart(losses) else 0


def apart(losses: Sequence[Losses]) -> list[Losses]:
    """The steps whose losses differ by more than :data:`TOLERANCE`; NaN differs from everything."""
    return [one for one in losses if not one.difference <= TOLERANCE]


def as_json(losses: Sequence[Losses]) -> dict[str, Any]:
    steps = [{"step": one.step, "stage": one.ours, "transformers": one.theirs} for one in losses]
    return {"equal": not apart(losses), "tolerance": TOLERANCE, "steps": steps}


def lines(losses: Sequence[Losses]) -> Iterator[str]:
    yield f"{'step':>6} {'stage':>10} {'transformers':>12} {'difference':>10}"
    for one in losses[:: max(1, len(losses) // SHOWN)]:
        yield f"{one.step:>6} {one.ours:>10.5f} {one.theirs:>12.5f} {one.difference:>10.1e}"
    # NaN is neither more nor less than a number.
    worst = max(losses, key=lambda one: (isnan(one.difference), one.difference))
    yield f"{len(losses)} steps, the largest difference is {worst.difference:.1e} nats per token, at step {worst.step}"
    differing = apart(losses)
    yield f"the losses differ from step {differing[0].step} on" if differing else f"equal within {TOLERANCE:g}"


if __name__ == "__main__":
    sys.exit(main())
