"""Reads several prepared sources as one, in an order that depends only on the seed and the position."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.config.mixture import phase_ends
from titanflow.data.dataset_info import DatasetInfo, read_info
from titanflow.data.length_groups import GroupedByLength, Phases
from titanflow.data.order import Course, MixedSource, Order, visited
from titanflow.data.phases import PhasedOrder, PhaseRows
from titanflow.data.prepared import PreparedRows, Row
from titanflow.runs.contract import DATASET_FILE


def write_mixture(
    folder: Path, name: str, fingerprint: str, spec: Mapping[str, Any], members: Mapping[str, Path]
) -> None:
    """Writes the folder of a mixture, which refers to the prepared folders of its ``members``.

    For ``spec`` see :func:`titanflow.config.mixture.mixture_spec`.
    """
    infos = [read_info(member) for member in members.values()]
    paths = [path for member in members.values() if (path := member / TEMPLATE_FILE).is_file()]
    templates = {path.read_text(encoding="utf-8") for path in paths}
    vocabularies = {info.vocab_size for info in infos}
    for what, values in (("vocabularies", vocabularies), ("chat templates", templates)):
        if len(values) > 1:
            raise DataError(Problem(f"the sources of {name} were prepared with different {what}", "data.mixture"))
    first = infos[0]
    info = DatasetInfo(
        kind="mixture",
        name=name,
        fingerprint=fingerprint,
        documents=sum(info.documents for info in infos),
        tokens=sum(info.tokens for info in infos),
        trained_tokens=sum(info.trained_tokens for info in infos),
        bytes=sum(info.bytes for info in infos),
        dtype=first.dtype,
        vocab_size=first.vocab_size,
        pad_id=first.pad_id,
        longest=max(info.longest for info in infos),
        ends_of_turn=list(dict.fromkeys(end for info in infos for end in info.ends_of_turn)),
        mixture={**spec, "members": {member: str(path) for member, path in members.items()}},
    )
    if templates:
        (folder / TEMPLATE_FILE).write_text(templates.pop(), encoding="utf-8")
    (folder / DATASET_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")


def open_rows(folder: Path | str, seq_len: int) -> PreparedRows | MixedRows:
    """Opens a prepared folder, of one source or of a mixture.

    Raises:
        DataError: see :meth:`PreparedRows.open`.
    """
    info = read_info(folder)
    return MixedRows(info, seq_len) if info.kind == "mixture" else PreparedRows.open(folder, seq_len)


class MixedRows:
    """Random access to the rows of a mixture's sources, numbered one source after the other."""

    def __init__(self, info: DatasetInfo, seq_len: int) -> None:
        self.info = info
        self.seq_len = seq_len
        self.members = {name: PreparedRows.open(folder, seq_len) for name, folder in info.mixture["members"].items()}
        self._ends = np.cumsum([len(rows) for rows in self.members.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} in the mixture {self.info.name}")
        source = int(np.searchsorted(self._ends, index, side="right"))
        rows = list(self.members.values())[source]
        row = rows.row(index - int(self._ends[source]) + len(rows))
        # Pairs have numbers in the whole mixture, as rows do.
        before = sum(one.info.documents for one in list(self.members.values())[:source])
        return row if row.pairs is None else row._replace(pairs=row.pairs + before)

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """As :meth:`PreparedRows.lengths`."""
        found = np.empty(len(indices), dtype=np.int64)
        sources = np.searchsorted(self._ends, indices, side="right")
        for source, rows in enumerate(self.members.values()):
            chosen = sources == source
            found[chosen] = rows.lengths(indices[chosen] - self._ends[source] + len(rows))
        return found

    def order(self, seed: int, course: Course | None = None) -> Order:
        """The order of these rows. Phases need the ``course``, of whose steps they are shares.

        Raises:
            ValueError: phases without a course, or one without a step.
        """
        if course is None or not (course.by_length and any(rows.differ for rows in self.members.values())):
            return self._mixed(seed, course)
        phases = self.info.mixture.get("phases") or []
        parts = Phases(tuple(phase_ends(phases, course.steps))) if phases else Phases()
        return GroupedByLength(self._mixed(seed, course), self.lengths, course, seed, parts)

    def _mixed(self, seed: int, course: Course | None) -> MixedOrder | PhasedOrder:
        mixture, members = self.info.mixture, self.members.items()
        sources = [
            MixedSource(name, len(rows), tokens_a_row(rows), **mixture["sources"][name]) for name, rows in members
        ]
        if phases := mixture.get("phases"):
            if course is None:
                raise ValueError("phases are shares of a training's steps, and no training was given")
            ends = phase_ends(phases, course.steps)
            lengths = [(end - start) * course.batch for start, end in pairwise([0, *ends])]
            parts = [PhaseRows(rows, phase["weights"]) for rows, phase in zip(lengths, phases, strict=True)]
            return PhasedOrder(sources, parts, mixture["weights"], seed, course.skipped)
        return MixedOrder(sources, mixture["strategy"], mixture["weights"], mixture["stop"], seed)


def tokens_a_row(rows: PreparedRows) -> float:
    """The mean number of tokens in a row, without its padding."""
    return float(rows.seq_len) if rows.info.kind == "text" else rows.info.tokens / len(rows)


class MixedOrder(Order):
    """Which row stands at a position of a mixture's endless stream.

    A round is a fixed sequence of sources. After any number of rows, each source's share is as exact as whole rows
    allow. Rounds follow one another, each source continues where it was, and each of its epochs is a new permutation.
    """

    def __init__(
        self,
        sources: list[MixedSource],
        strategy: Literal["interleave", "concat"],
        weights: Literal["rows", "tokens"],
        stop: Literal["first_exhausted", "all_exhausted"],
        seed: int,
    ) -> None:
        self.sources = sources
        self.seed = seed
        self._starts = np.cumsum([0, *(source.rows for source in sources)])
        ends = [max(1, round(source.rows * source.epochs)) for source in sources]
        if strategy == "concat":
            self._round = np.repeat(np.arange(len(ends), dtype=np.int16), ends)
        else:
            self._round = _interleaved(sources, ends, weights, stop)
        self._counts = np.bincount(self._round, minlength=len(sources))
        # For each place of the round: how many earlier places have the same source.
        self._before = np.empty(len(self._round), np.int64)
        for source in range(len(sources)):
            places = self._round == source
            self._before[places] = np.arange(places.sum())

    def __len__(self) -> int:
        return len(self._round)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at these positions, with the numbers of :class:`MixedRows`."""
        rounds, places = np.divmod(positions, len(self._round))
        chosen = self._round[places]
        visits = rounds * self._counts[chosen] + self._before[places]
        rows = np.empty(len(positions), np.int64)
        for source in np.unique(chosen):
            of_source = chosen == source
            count = self.sources[source].rows
            rows[of_source] = self._starts[source] + visited(count, self.seed, visits[of_source], int(source) + 1)
        return rows

    def shares(self, positions: int) -> dict[str, float]:
        rounds, rest = divmod(positions, len(self._round))
        counts = rounds * self._counts + np.bincount(self._round[:rest], minlength=len(self.sources))
        tokens = counts * np.array([source.tokens_a_row for source in self.sources])
        shares = tokens / (tokens.sum() or 1)
        return {source.name: float(share) for source, share in zip(self.sources, shares, strict=True)}


def _interleaved(sources: list[MixedSource], ends: list[int], weights: str, stop: str) -> NDArray[np.int16]:
    """A round: the n-th row of a source with rate r is due at (n + 1/2) / r."""
    rates = np.array([source.weight / (source.tokens_a_row if weights == "tokens" else 1.0) for source in sources])
    lasts = np.array(ends) / rates
    horizon = lasts.min() if stop == "first_exhausted" else lasts.max()
    counts = [max(1, int(np.ceil(horizon * rate - 0.5))) for rate in rates]
    due = np.concatenate([(np.arange(count) + 0.5) / rate for count, rate in zip(counts, rates, strict=True)])
    which = np.repeat(np.arange(len(sources), dtype=np.int16), counts)
    return which[np.argsort(due, kind="stable")]
