"""Steps, batch, row length and model size of a first run, as they follow from the data and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from titanflow.common.errors import DataError, Problem
from titanflow.data.inspect.inspection import Inspection
from titanflow.draft.machine import PRETRAIN, SFT, TOKENS_A_PARAMETER, Machine

PASSES = 4
"""Passes over the text at most: up to four teach nearly as much as new text (arXiv:2305.16264)."""
EPOCHS = {"scratch": 5, "base": 3}
"""Passes over the conversations: a model from scratch has more to learn of them."""
STEPS = 2000
"""About so many steps a pretraining has, from which its batch follows."""
FEWEST_STEPS = 20
ROWS_OF_TEXT = 40
"""Rows of text there must be, at least; a row may be shorter for that, down to so many tokens:"""
SHORTEST_ROW = 32
CONVERSATIONS = 10
"""Conversations there must be, at least."""
LONGER = 4
"""So many times the usual row is the longest, for conversations of which many would be left out otherwise."""
DOCUMENTS = 3
"""Different documents there must be, at least: one to train on, and one for each held-out part."""
MOST_OF_IT = 0.5
"""From this share of the text on, a single document decides what is learned, or is missed."""
HELD_OUT = 200
"""At most so many rows are held out for each purpose."""


@dataclass(frozen=True)
class Text:
    """The documents to train on, in tokens; ``a_token`` are the bytes of one."""

    seen: Inspection
    a_token: float

    def __post_init__(self) -> None:
        if self.seen.different < DOCUMENTS:
            found = f"{_different(self.seen)} (a document here is a {self._unit})"
            hint = "part it by blank lines or lines" if self._unit == "line" else "part the text into more of them"
            raise DataError(Problem(found, "--text", "", f"at least {DOCUMENTS}, of which some are held out", hint))

    @property
    def _unit(self) -> str:
        """What a document is in these files."""
        return str(self.seen.data.get("document", "row" if self.seen.facts[0].columns else "file"))

    @property
    def largest(self) -> float:
        """The share of the text that the longest document has, if that is more than half of it; else 0."""
        lengths = [length for one in self.seen.facts for length in one.lengths]
        share = max(lengths) / max(1, sum(lengths))
        return share if self.seen.is_whole and share > MOST_OF_IT else 0.0

    @property
    def tokens(self) -> int:
        return int(self.seen.size / self.a_token)

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row of which there are enough."""
        return self.tokens // ROWS_OF_TEXT // 64 * 64

    def row(self, at_least: int, usual: int) -> int:
        """Tokens of a row: no more than conversations need or are usual, and enough rows."""
        row = max(at_least, usual)
        while self.tokens < ROWS_OF_TEXT * row and row > SHORTEST_ROW:
            row //= 2
        if self.tokens < ROWS_OF_TEXT * row or row < at_least:
            found = f"about {self.tokens:,} tokens of text in {self.seen.size:,} bytes"
            expected = f"at least {ROWS_OF_TEXT * max(SHORTEST_ROW, at_least):,} tokens"
            hint = "--base OWNER/NAME begins with a model that has read more" if at_least else "add more text"
            raise DataError(Problem(found, "--text", "", expected, hint))
        return row

    def held_out(self, row: int) -> int:
        """Documents to hold out for one purpose: a fiftieth of the text, some rows at least and not many documents."""
        a_document = self.tokens / max(1, self.seen.rows)
        wanted = max(8 * row, min(self.tokens // 50, 100 * row))
        return max(1, min(math.ceil(wanted / max(1.0, a_document)), self.seen.different // 5))


@dataclass(frozen=True)
class Chats:
    """The conversations to train on; ``a_token`` are the bytes of one token."""

    seen: Inspection
    a_token: float

    def __post_init__(self) -> None:
        if self.seen.different < CONVERSATIONS:
            found = _different(self.seen)
            raise DataError(Problem(found, "--chats", "", f"at least {CONVERSATIONS}, of which some are held out"))

    @cached_property
    def tokens(self) -> list[float]:
        """The tokens of each conversation that was looked at, sorted."""
        return self.seen.tokens(self.a_token)

    @property
    def mean(self) -> float:
        """Tokens of a conversation."""
        tokens = self.tokens
        return sum(tokens) / len(tokens)

    def row(self, usual: int, longest: int) -> int:
        """Tokens of a row: 99 of 100 conversations fit if ``usual`` tokens are enough, and else nine of ten, if
        ``longest`` are.

        Raises:
            DataError: hardly any conversation is so short.
        """
        row = max(min(usual, self._row_of(0.99)), min(longest, self._row_of(0.9)))
        if (fit := self._fitting(row) * self.seen.different) < CONVERSATIONS:
            found = f"{fit:.0f} of {self.seen.different} conversations have no more than {row} tokens, the most here"
            hint = "part them, or shorten them; or name a base that was trained on longer rows"
            raise DataError(Problem(found, "--chats", "", f"at least {CONVERSATIONS}", hint))
        return row

    def _row_of(self, share: float) -> int:
        """The row that so many of the conversations fit into."""
        needed = self.tokens[int(len(self.tokens) * share)]
        # Rounded up, since the measure is one of a part of the text.
        return max(64, 64 * math.ceil(1.1 * needed / 64))

    def _fitting(self, row: int) -> float:
        """The share of the conversations that fit into a row."""
        return sum(one <= row for one in self.tokens) / len(self.tokens)

    def longer(self, row: int) -> int:
        """Conversations that don't fit into a row, about."""
        return round((1 - self._fitting(row)) * self.seen.rows)

    def held_out(self, row: int) -> int:
        """Conversations to hold out for one purpose: more, where some of them won't fit into a row."""
        wanted = max(1, min(HELD_OUT, self.seen.different // 20))
        return math.ceil((wanted + 1) / self._fitting(row)) - 1


def _different(seen: Inspection) -> str:
    """How many rows there are, and how many of them differ."""
    what = ("document" if seen.kind == "text" else "conversation") + "s" * (seen.rows > 1)
    if seen.different >= seen.rows:
        return f"{seen.rows:,} {what}"
    return f"{seen.rows:,} {what}, {f'{seen.different} of them different' if seen.different > 1 else 'all alike'}"


def size_for(tokens: int, machine: Machine) -> int:
    """Parameters of a model that so much text and the machine can teach: a few tokens for each at least."""
    share = TOKENS_A_PARAMETER[machine.device.kind]
    by_time = math.sqrt(machine.flops * PRETRAIN[machine.device.kind] / (6 * share))
    return int(min(by_time, PASSES * tokens / share))


def pretrain_steps(tokens: int, parameters: int, row: int, machine: Machine, is_base: bool) -> tuple[int, int]:
    """Rows of a step, and steps: from scratch some tokens for each parameter, a base one pass as far as time allows."""
    share = TOKENS_A_PARAMETER[machine.device.kind]
    wanted = PASSES * tokens if not is_base else tokens
    most = share * parameters if not is_base else _tokens(parameters, PRETRAIN, machine)
    trained = min(wanted, most)
    batch = max(1024, min(1 << 19, 1 << int(math.log2(max(1024, trained / STEPS)))))
    rows = machine.count * max(1, batch // row // machine.count)
    return rows, _steps(trained / (rows * row))


def sft_steps(chats: Chats, parameters: int, row: int, machine: Machine, is_base: bool) -> tuple[int, int]:
    """Rows of a step, and steps: some passes over the conversations, as far as the time allows."""
    few = 8 if not machine.is_gpu or chats.seen.rows < 2000 else 32
    rows = machine.count * max(1, few // machine.count)
    trained = max(1, chats.seen.rows - chats.longer(row) - 2 * chats.held_out(row))
    by_data = EPOCHS["base" if is_base else "scratch"] * trained / rows
    by_time = _tokens(parameters, SFT, machine) / (rows * min(row, chats.mean + row / 4))
    return rows, _steps(min(by_data, by_time))


def _tokens(parameters: int, seconds: Mapping[str, float], machine: Machine) -> float:
    """The tokens that a model is trained on in the seconds of the machine's kind; its parameters may be unknown, 0."""
    return machine.flops * seconds[machine.device.kind] / (6 * max(1, parameters))


def _steps(steps: float) -> int:
    """Two digits of a number of steps."""
    whole = max(FEWEST_STEPS, int(steps))
    digits = 10 ** max(0, int(math.log10(whole)) - 1)
    return whole // digits * digits


def learning_rate(parameters: int) -> float:
    """A rate for a model from scratch: it falls with the root of the size, from the default experiment's tried one."""
    return _digits(max(3e-4, min(4e-3, 4e-3 * math.sqrt(1.4e6 / max(1, parameters)))))


def base_rate(parameters: int, lora: bool = False) -> float:
    """A rate for a base's weights, or for adapters beside them, which take ten times as much: that of ``sft.yaml`` for
    a model of seven billion parameters, and more for smaller ones, but less than for one from scratch."""
    whole = min(learning_rate(parameters) / 2, 2e-5 * math.sqrt(7e9 / max(1, parameters)))
    return _digits(min(2e-3, 10 * whole) if lora else whole)


def _digits(rate: float) -> float:
    return float(f"{rate:.1e}")
