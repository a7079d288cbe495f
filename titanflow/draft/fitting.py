"""Chooses batch, precision and adapters so that the trainings fit their device, by the plan's own forecast."""

from __future__ import annotations

from collections.abc import Iterator

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.quantities import short, size
from titanflow.config.experiment import load_experiment
from titanflow.config.module import Module
from titanflow.draft.draft import Draft
from titanflow.draft.render import Fit, render
from titanflow.draft.trial import trial
from titanflow.planning.forecast.fit import capacity
from titanflow.planning.forecast.forecast import model_forecast

MARGIN = 0.9
"""The share of a device's memory that a forecast may take: fragments and other programs need some."""
SMALLEST_SHARE = 64
"""The most that a rank's rows are divided by."""


def fitting(draft: Draft) -> str:
    """The text of the first experiment that fits the machine: the fastest one, with the least change to it.

    Raises:
        ConfigError: none fits.
    """
    needed: dict[str, int] = {}
    for ways in _candidates(draft):
        texts = list(dict.fromkeys(render(draft, fit) for fit in ways))
        # Where the fewest rows don't fit, no more do.
        if not (needed := _lacking(texts[-1], draft)):
            return next(text for text in texts if text == texts[-1] or not _lacking(text, draft))
    key = "--base" if draft.base else "--size"
    what = " and ".join(f"{stage} takes {size(bytes_)}" for stage, bytes_ in needed.items())
    has = f"{draft.machine} has {size(draft.machine.device.memory or 0)}"
    found = f"{short(draft.parameters)} parameters don't fit: {what}, and {has}"
    raise ConfigError(Problem(found, key, expected="a smaller model", hint="or run this on a machine with more memory"))


def _candidates(draft: Draft) -> Iterator[list[Fit]]:
    """Ways to train, the fastest first, each with fewer and fewer rows at a time.

    Adapters need a base: a model from scratch can't learn by them.
    """
    by = [1 << power for power in range(SMALLEST_SHARE.bit_length())]
    for lora, narrow in ((False, False), (True, False), (True, True)):
        if lora and (draft.base is None or draft.text is not None):
            return
        if narrow and not draft.machine.is_gpu:
            return
        for recompute in (False, True):
            yield [Fit(divided, recompute, lora, narrow) for divided in by]


def _lacking(text: str, draft: Draft) -> dict[str, int]:
    """The trainings that don't fit, each with the bytes that a rank of it needs."""
    with trial(draft.asked.name, text) as path:
        modules = load_experiment(str(path), starts=False).modules.values()
    return {one.name: total for one in modules if one.trains and (total := _over(one, draft))}


def _over(module: Module, draft: Draft) -> int:
    """The bytes that a rank of a training needs, if it hasn't so many; else 0."""
    room = capacity(module, draft.machine.device)
    memory = model_forecast(module, draft.machine.device.kind)[1]
    return 0 if room is None or memory is None or memory.total <= MARGIN * room else memory.total
