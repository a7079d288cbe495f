"""Sides that each start, do their work and end: in turns, so that what else the machine does counts for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_pairs(sides: Sequence[Callable[[], T]], pairs: int, warm_up: bool = True) -> list[list[T]]:
    """What each side gave in each pair. The order within a pair alternates; a first round is left out.

    That round fills the caches of files and of bytecode, from which all later ones read.
    """
    if warm_up:
        for side in sides:
            side()
    found: list[list[T]] = [[] for _ in sides]
    for pair in range(pairs):
        for number in range(len(sides))[:: -1 if pair % 2 else 1]:
            found[number].append(sides[number]())
    return found
