"""A training that is killed with -9 and goes on from its checkpoint, beside one that was left in peace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inputs import write_text, write_tokenizer
from place import Place, Row, judged
from stages import Failed, StagePlan, begin, finish, follow, log_of, metrics, planned, prepare

from titanflow.runs.contract import RESULT_FILE

STEPS, TOY_STEPS = 400, 24
ROWS = ["a kill and a resume"]


def check(place: Place, seconds: float) -> Iterator[Row]:
    """Compares the loss and the gradients' norm of each step, to the bit."""
    steps = TOY_STEPS if place.toy else STEPS
    text, tokenizer = write_text(place.folder, 1), write_tokenizer(place.folder)
    training = {"seq_len": 128, "local_batch_size": 4, "steps": steps}
    overrides = {
        "training": training,
        "tokenizer": {"path": str(tokenizer)},
        "checkpoint": {"interval": steps // 4},
        "metrics": {"log_freq": 1, "enable_wandb": False},
        "debug": {"deterministic": True},
    }
    model = "llama3_debugmodel.yaml"
    modules = {
        "pretrain": {"config": "pretrain.yaml", "model": model, "data": {"path": str(text)}, "overrides": overrides}
    }
    calm, killed = (planned(modules, place.folder / "runs", run) for run in ("calm", "killed"))
    prepare(calm)
    finish(calm.stage("pretrain"))
    stage = killed.stage("pretrain")
    killed_at = kill(stage, steps * 5 // 8, seconds / 3)
    finish(stage)
    one, other = (numbers(plan.stage("pretrain")) for plan in (calm, killed))
    differing = [step for step in one if one[step] != other.get(step)]
    found = f"killed after step {killed_at} of {steps}: {len(one)} steps equal"
    if differing:
        found = f"killed after step {killed_at} of {steps}: {len(differing)} steps differ, the first is {differing[0]}"
    yield judged(ROWS[0], "every step's loss and gradient norm, to the bit", found, not differing, steps=len(one))


def kill(stage: StagePlan, step: int, seconds: float) -> int:
    """Starts a training, and kills it soon after a step; the last step that it logged.

    Raises:
        Failed: it ended before, or didn't come so far.
    """
    follow(begin(stage), log_of(stage), lambda: len(metrics(stage)) >= step, seconds)
    reached = len(metrics(stage))
    if (stage.run.folder / RESULT_FILE).exists() or reached < step:
        raise Failed(f"it was to be killed at step {step}, and came to {reached}")
    return reached


def numbers(stage: StagePlan) -> dict[int, tuple[Any, Any]]:
    """Loss and gradient norm by step."""
    return {record["step"]: (record["loss"], record["grad_norm"]) for record in metrics(stage)}
