"""The mean of models as an experiment writes it: ``{mean: [a, b], weights: [0.5, 0.5]}``, or of a stage's checkpoints.

An evaluation names it among its ``models``; a publication may name it then as its ``model``. The best checkpoint of a
stage (:mod:`titanflow.config.means.best`) is a mean of one model: ``{best: {of: pretrain, by: dev/task/metric}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHAPE = "{mean: [sft_a, sft_b], weights: [0.5, 0.5]}, or {mean: {of: pretrain, last: 5}}"
SUM_TO = 1e-6
"""How far from 1 the weights' sum may be: written with few digits, thirds are."""


@dataclass(frozen=True)
class Mean:
    """The stages whose last weights are averaged, each with its weight; with ``last`` that many checkpoints of one.

    With ``by``, ``dev/task/metric``, it is one checkpoint of one stage: the best by that.
    """

    stages: tuple[str, ...]
    weights: tuple[float, ...]
    last: int = 0
    by: str = ""

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Mean:
        """A recipe that was found sound (:mod:`titanflow.config.means.settle`)."""
        if best := recipe.get("best"):
            return cls((best["of"],), (1.0,), by=best["by"])
        given = recipe["mean"]
        if isinstance(given, Mapping):
            return cls((given["of"],), (1 / given["last"],) * given["last"], given["last"])
        weights = recipe.get("weights") or [1 / len(given)] * len(given)
        return cls(tuple(given), tuple(map(float, weights)))

    def __str__(self) -> str:
        """As ``the mean of sft_a and sft_b``, with the weights where they differ."""
        if self.by:
            return f"the best checkpoint of {self.stages[0]} by {self.by}"
        if self.last:
            return f"the mean of the last {self.last} checkpoints of {self.stages[0]}"
        are_alike = len(set(self.weights)) == 1
        parts = [
            stage if are_alike else f"{stage} ({weight:g})"
            for stage, weight in zip(self.stages, self.weights, strict=True)
        ]
        return f"the mean of {' and '.join(parts)}"


def means_of(config: Mapping[str, Any]) -> dict[str, Mean]:
    """The means that an evaluation's config names."""
    return {name: Mean.of(recipe) for name, recipe in (config.get("means") or {}).items()}


def best_of(config: Mapping[str, Any]) -> dict[str, Mean]:
    """Those of the means that are the best checkpoint of a stage."""
    return {name: mean for name, mean in means_of(config).items() if mean.by}


def base_mean(config: Mapping[str, Any]) -> Mean | None:
    """The mean that a training starts from; None where it starts from anything else."""
    named = config.get("base")
    return Mean.of(named) if isinstance(named, Mapping) else None


def averaged_stages(config: Mapping[str, Any]) -> list[str]:
    """The stages of which an evaluation makes means, or of whose mean a training starts, each once."""
    base = base_mean(config)
    means = [*means_of(config).values(), *([base] if base else [])]
    return list(dict.fromkeys(stage for mean in means for stage in mean.stages))


def named_stages(recipe: Any) -> list[Any]:
    """What a recipe names as stages, whether or not it is sound."""
    given = recipe.get("mean") if isinstance(recipe, Mapping) else None
    named = [given.get("of")] if isinstance(given, Mapping) else given
    return named if isinstance(named, list) else []


def misshapen(recipe: Any) -> tuple[str, str] | None:
    """What was found and what is expected where a recipe is none, whichever stages it names; None where it is one."""
    if not isinstance(recipe, Mapping) or not recipe.keys() <= {"mean", "weights"} or "mean" not in recipe:
        return f"found {recipe!r}", f"a model's folder, or {SHAPE}"
    given, weights = recipe["mean"], recipe.get("weights")
    if isinstance(given, Mapping):
        last = given.get("last")
        if given.keys() != {"of", "last"} or not isinstance(last, int) or isinstance(last, bool) or last < 2:
            return f"found {dict(given)!r}", "{of: pretrain, last: 5}, with 2 or more checkpoints"
        return None if weights is None else (f"found weights {weights!r}", "none: checkpoints of a stage count alike")
    if not isinstance(given, list) or len(given) < 2:
        return f"found {given!r}", f"two stages or more: {SHAPE}"
    if twice := [one for one in given if given.count(one) > 1]:
        return f"found {twice[0]!r} twice", "each stage once, with a weight"
    if weights is not None and not _are_weights(weights, len(given)):
        return f"found weights {weights!r}", f"{len(given)} numbers from 0 that sum to 1"
    return None


def _are_weights(weights: Any, count: int) -> bool:
    if not isinstance(weights, list) or len(weights) != count:
        return False
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in weights)
    return are_numbers and abs(sum(weights) - 1) <= SUM_TO
