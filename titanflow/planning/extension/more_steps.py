"""More steps for a training that has run: the checkpoint from which it goes on, or why it can't.

It goes on where the two schedules, with the old number of steps and the new one, have been the same until then. What
it makes is therefore what a run makes that had the new number from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from titanflow.architectures.custom_code import custom_import
from titanflow.architectures.families.registry import FAMILIES
from titanflow.planning.extension.schedule import Schedule
from titanflow.runs.changes import Change
from titanflow.runs.checkpoints import full_steps
from titanflow.runs.contract import StageRun
from titanflow.runs.inputs import StageInputs

STEPS = "training.steps"
INSTEAD = (
    "what works: --on-stale rerun, which trains all steps; or a new stage with this one as its base, under a schedule "
    "of its own"
)


@dataclass(frozen=True)
class Extension:
    """More steps, ``old`` → ``new``: ``begins`` is the step that training goes on from, ``refusal`` why it can't.

    ``last`` is the last step until which both schedules are the same.
    """

    old: int
    new: int
    last: int = 0
    begins: int = 0
    refusal: str = ""

    def __str__(self) -> str:
        decay = ", before its decay," if self.last < self.old else ""
        aside = "; what it made after that moves to superseded/" if self.begins < self.old else ""
        return f"more steps: from step {self.begins:,}{decay} to step {self.new:,}{aside}"


def find_extension(run: StageRun, changes: Sequence[Change], inputs: StageInputs) -> Extension | None:
    """What more steps would do to a training; None if these changes are anything else.

    Args:
        changes: the inputs that differ from those of the stage's output.
        inputs: the stage's inputs as they are now.
    """
    (key, old, new) = (changes[0].key, changes[0].old, changes[0].new) if len(changes) == 1 else ("", 0, 0)
    module, _, name = key.partition(".")
    if name != STEPS or not new > old:
        return None
    before, after = Schedule.of(run.config, old), Schedule.of(run.config, new)
    if refusal := _by_schedule(before, after) or _by_model(run, module, inputs):
        return Extension(old, new, refusal=refusal)
    last = old if before.is_fixed else min(before.decays_after, after.decays_after)
    begins = next((step for step in full_steps(run.folder / "checkpoint") if step <= last), None)
    if begins is None:
        where = f" from before its decay, which began after step {last:,}" if last < old else ""
        return Extension(old, new, refusal=f"no checkpoint with a training state{where} is left")
    return Extension(old, new, last, begins)


def _by_schedule(before: Schedule, after: Schedule) -> str:
    if before.is_fixed:
        return ""
    if before.warmup != after.warmup:
        return f"its warm-up was cut to {before.warmup:,} steps, and would have {after.warmup:,}"
    if not before.has_plateau and not before.is_constant:
        shape = f"a {before.decay_type} decay (lr_scheduler.decay_type)"
        return f"its learning rate falls by {shape} over all steps, and more of them change each step's rate"
    return ""


def _by_model(run: StageRun, module: str, inputs: StageInputs) -> str:
    """What else counts a training's steps."""
    if ((run.config.get("data") or {}).get("mixture") or {}).get("phases"):
        return "the borders of its phases (data.mixture.phases) move with training.steps"
    if custom := custom_import(run.config):
        return f"the code of {custom} may depend on training.steps"
    # The family of a model that a base has given stands in no config; its arguments stand in the inputs.
    for annealed in (family.annealed for family in FAMILIES.values()):
        values = [inputs.values.get(f"{module}.model.{argument}") for argument in annealed]
        if len(set(values)) > 1:
            return f"its model goes from {annealed[0]} to {annealed[-1]} over all steps"
    return ""
