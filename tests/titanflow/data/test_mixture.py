from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from titan.train.dataloader import PreparedDataLoader
from titanflow.common.errors import DataError
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.mixture import MixedOrder, MixedRows, open_rows, write_mixture
from titanflow.data.order import MixedSource
from titanflow.data.prepared import PreparedRows, write_rows

SEQ_LEN = 4


def order(*sources: MixedSource, strategy="interleave", weights="rows", stop="first_exhausted", seed=3) -> MixedOrder:
    return MixedOrder(list(sources), strategy, weights, stop, seed)


def chosen(mixed: MixedOrder, positions: int) -> list[int]:
    """Which source stands at each position."""
    starts = np.cumsum([0, *(source.rows for source in mixed.sources)])
    rows = mixed.at(np.arange(positions))
    return (np.searchsorted(starts, rows, side="right") - 1).tolist()


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0, 1.0), (5.0, 2.0, 0.5)])
def test_after_any_number_of_rows_each_share_is_met_as_nearly_as_whole_rows_allow(weights) -> None:
    mixed = order(*(MixedSource(str(index), 500, 1.0, weight) for index, weight in enumerate(weights)))
    sources = np.array(chosen(mixed, 500))
    for index, weight in enumerate(weights):
        wanted = np.arange(1, 501) * weight / sum(weights)
        assert np.abs(np.cumsum(sources == index) - wanted).max() <= 1.0


def test_a_round_ends_with_the_first_or_the_last_source() -> None:
    small, large = MixedSource("small", 10, 1.0), MixedSource("large", 100, 1.0)
    assert len(order(small, large)) == 20
    assert len(order(small, large, stop="all_exhausted")) == 200
    twice = MixedSource("small", 10, 1.0, epochs=2)
    assert len(order(twice, large)) == 40
    assert len(order(MixedSource("small", 10, 1.0, weight=3), large)) == 13


def test_each_source_goes_through_its_rows_before_it_sees_one_again() -> None:
    mixed = order(MixedSource("small", 10, 1.0), MixedSource("large", 30, 1.0), stop="all_exhausted")
    rows = mixed.at(np.arange(2 * len(mixed)))
    small, large = rows[rows < 10], rows[rows >= 10]
    assert [sorted(small[start : start + 10].tolist()) for start in range(0, len(small), 10)] == [list(range(10))] * 6
    assert [sorted(large[start : start + 30].tolist()) for start in range(0, 60, 30)] == [list(range(10, 40))] * 2
    assert small[:10].tolist() != small[10:20].tolist()


def test_sources_that_stop_early_go_on_in_the_next_round() -> None:
    mixed = order(MixedSource("small", 10, 1.0), MixedSource("large", 30, 1.0))
    rows = mixed.at(np.arange(3 * len(mixed)))
    assert sorted(rows[rows >= 10].tolist()) == list(range(10, 40))


def test_one_after_another() -> None:
    mixed = order(MixedSource("a", 4, 1.0, epochs=2), MixedSource("b", 6, 1.0, epochs=0.5), strategy="concat")
    assert chosen(mixed, 11) == [0] * 8 + [1] * 3
    assert sorted(mixed.at(np.arange(8)).tolist()) == sorted([*range(4)] * 2)


def test_weights_by_tokens_give_a_source_of_long_rows_fewer_of_them() -> None:
    mixed = order(MixedSource("short", 1000, 100.0), MixedSource("long", 1000, 300.0), weights="tokens")
    assert np.bincount(chosen(mixed, 400)).tolist() == [300, 100]
    assert mixed.shares(400) == pytest.approx({"short": 0.5, "long": 0.5})


def test_shares_are_those_of_the_tokens_so_far() -> None:
    mixed = order(MixedSource("a", 4, 10.0), MixedSource("b", 4, 30.0), strategy="concat")
    assert mixed.shares(0) == {"a": 0.0, "b": 0.0}
    assert mixed.shares(4) == {"a": 1.0, "b": 0.0}
    assert mixed.shares(8) == {"a": 0.25, "b": 0.75}
    assert mixed.shares(12) == pytest.approx({"a": 0.4, "b": 0.6})


def test_a_position_gives_its_row_whatever_was_asked_before() -> None:
    sources = [MixedSource("a", 7, 1.0, 2.0), MixedSource("b", 11, 1.0, 1.0)]
    whole = order(*sources).at(np.arange(100))
    again = order(*sources)
    assert (
        np.concatenate([again.at(np.arange(start, start + 10)) for start in range(0, 100, 10)]).tolist()
        == whole.tolist()
    )
    assert order(*sources, seed=4).at(np.arange(100)).tolist() != whole.tolist()


def prepared(folder: Path, first: int, documents: int, vocab_size: int = 1000) -> Path:
    """Text rows whose first tokens count from ``first``."""
    tokens = np.repeat(np.arange(first, first + documents), SEQ_LEN).astype(np.uint16)
    tokens = np.append(tokens, tokens[-1])
    info = DatasetInfo("text", folder.name, "", 1, len(tokens), len(tokens), 0, "uint16", vocab_size, 0)
    folder.mkdir(parents=True)
    write_rows(folder, info, [tokens], np.array([len(tokens)]))
    return folder


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    members = {"a": prepared(tmp_path / "a", 100, 6), "b": prepared(tmp_path / "b", 200, 3)}
    spec = {"strategy": "interleave", "weights": "rows", "stop": "all_exhausted"}
    sources = {name: {"weight": 1.0, "epochs": 1.0} for name in members}
    (tmp_path / "mixed").mkdir()
    write_mixture(tmp_path / "mixed", "mixed", "", {**spec, "sources": sources}, members)
    return tmp_path / "mixed"


def test_a_mixtures_rows_are_its_sources(mixture: Path) -> None:
    rows = open_rows(mixture, SEQ_LEN)
    assert isinstance(rows, MixedRows)
    assert [int(rows.row(index).input_ids[0]) for index in range(len(rows))] == [*range(100, 106), *range(200, 203)]
    with pytest.raises(IndexError, match="row 9 of 9"):
        rows.row(9)
    assert isinstance(open_rows(mixture.parent / "a", SEQ_LEN), PreparedRows)


def test_any_number_of_ranks_sees_the_same_mixture_and_resumes_in_it(mixture: Path) -> None:
    def batches(rank: int, ranks: int, seen: int, steps: int) -> list[list[int]]:
        loader = PreparedDataLoader(
            open_rows(mixture, SEQ_LEN),
            local_batch_size=4 // ranks,
            global_batch_size=4,
            rank=rank,
            ranks=ranks,
            seed=0,
        )
        loader.load_state_dict({"rows_seen": seen})
        stream = iter(loader)
        return [next(stream)[0]["input"][:, 0].tolist() for _ in range(steps)]

    whole = batches(0, 1, 0, 6)
    halves = [batches(rank, 2, 0, 6) for rank in range(2)]
    assert [left + right for left, right in zip(*halves, strict=True)] == whole
    assert batches(0, 1, 12, 3) == whole[3:]
    first_round = [token for batch in whole[:3] for token in batch]
    assert sorted(first_round) == sorted([*range(100, 106), *[*range(200, 203)] * 2])


def test_sources_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    members = {"a": prepared(tmp_path / "a", 100, 6), "b": prepared(tmp_path / "b", 200, 3, vocab_size=2000)}
    with pytest.raises(DataError, match="the sources of mixed were prepared with different vocabularies"):
        write_mixture(tmp_path, "mixed", "", {"sources": {}}, members)
