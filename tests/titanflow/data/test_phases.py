"""The order of a mixture with phases: shares, ranks, resumes, and where each source goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from titan.train.dataloader import PreparedDataLoader
from titanflow.config.mixture import phase_ends
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.mixture import open_rows, write_mixture
from titanflow.data.order import MixedSource
from titanflow.data.phases import PhasedOrder, PhaseRows
from titanflow.data.prepared import write_rows

SEQ_LEN = 4
WEB, CODE, MATHS = MixedSource("web", 500, 1.0), MixedSource("code", 30, 3.0), MixedSource("maths", 11, 1.0)
PHASES = [PhaseRows(101, {"web": 5, "code": 1}), PhaseRows(57, {"code": 1.0, "maths": 2.5})]


def order(*sources: MixedSource, phases=PHASES, by="rows", seed=3, skipped=0) -> PhasedOrder:
    return PhasedOrder(sources or (WEB, CODE, MATHS), phases, by, seed, skipped)


def chosen(phased: PhasedOrder, positions: range) -> np.ndarray:
    """Which source stands at each position."""
    starts = np.cumsum([0, *(source.rows for source in phased.sources)])
    return np.searchsorted(starts, phased.at(np.array(positions)), side="right") - 1


def test_each_phase_has_its_shares_to_less_than_one_row() -> None:
    first, second = (np.bincount(chosen(order(), span), minlength=3) for span in (range(101), range(101, 158)))
    assert np.abs(first - 101 * np.array([5, 1, 0]) / 6).max() < 1
    assert np.abs(second - 57 * np.array([0, 1, 2.5]) / 3.5).max() < 1


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0, 1.0), (5.0, 2.0, 0.5)])
def test_within_a_phase_too_the_shares_are_met_nearly(weights) -> None:
    sources = [MixedSource(str(index), 500, 1.0) for index in range(len(weights))]
    by_name = {str(index): weight for index, weight in enumerate(weights)}
    found = chosen(order(*sources, phases=[PhaseRows(40, {"0": 1.0}), PhaseRows(400, by_name)]), range(40, 440))
    for index, weight in enumerate(weights):
        wanted = np.arange(1, 401) * weight / sum(weights)
        off = np.abs(np.cumsum(found == index) - wanted)
        assert off[-1] < 1.0
        assert off.max() < 1.5


def test_many_small_sources_beside_a_large_one_have_their_shares_at_the_end() -> None:
    """Here the n-th rows of all small ones are due at the same moment."""
    sources = [MixedSource(str(index), 50, 1.0) for index in range(10)]
    weights = {"0": 0.5, **{str(index): 0.5 / 9 for index in range(1, 10)}}
    found = np.bincount(chosen(order(*sources, phases=[PhaseRows(100, weights)]), range(100)), minlength=10)
    assert found.sum() == 100
    assert np.abs(found - 100 * np.array(list(weights.values()))).max() < 1


def test_weights_by_tokens_give_a_source_of_long_rows_fewer_of_them() -> None:
    phases = [PhaseRows(400, {"web": 1.0, "code": 1.0}), PhaseRows(400, {"web": 3.0, "code": 1.0})]
    phased = order(phases=phases, by="tokens")
    assert np.bincount(chosen(phased, range(400)), minlength=3).tolist() == [300, 100, 0]
    assert np.bincount(chosen(phased, range(400, 800)), minlength=3).tolist() == [360, 40, 0]
    assert phased.shares(400) == pytest.approx({"web": 0.5, "code": 0.5, "maths": 0.0})
    assert phased.shares(800) == pytest.approx({"web": 660 / 1080, "code": 420 / 1080, "maths": 0.0})


def test_a_source_goes_on_in_the_next_phase_and_is_through_before_a_row_comes_again() -> None:
    phased = order()
    rows = phased.at(np.arange(158 + 200))
    code = rows[(rows >= 500) & (rows < 530)] - 500
    assert sorted(code[:30].tolist()) == list(range(30))
    assert sorted(code[30:60].tolist()) == list(range(30))
    assert code[:30].tolist() != code[30:60].tolist()


def test_a_position_gives_its_row_whatever_was_asked_before() -> None:
    whole = order().at(np.arange(400))
    for start in range(0, 400, 13):
        assert (order().at(np.arange(start, min(start + 13, 400))) == whole[start : start + 13]).all()
    mixed = np.random.default_rng(0).permutation(400)
    assert (order().at(mixed) == whole[mixed]).all()
    assert order(seed=4).at(np.arange(400)).tolist() != whole.tolist()


def test_shares_are_those_of_the_rows_so_far() -> None:
    phased = order()
    found = chosen(phased, range(300))
    for rows in (0, 1, 57, 100, 101, 102, 157, 158, 299):
        tokens = np.bincount(found[:rows], minlength=3) * np.array([1, 3, 1])
        assert list(phased.shares(rows).values()) == pytest.approx((tokens / (tokens.sum() or 1)).tolist())


def test_the_next_night_goes_through_the_same_phases_with_the_next_rows() -> None:
    night = order(skipped=158)
    assert (chosen(night, range(158, 316)) == chosen(order(), range(158))).all()
    both = np.concatenate([order().at(np.arange(158)), night.at(np.arange(158, 316))])
    web = both[both < 500]
    assert len(set(web.tolist())) == len(web)
    assert night.shares(316) == pytest.approx(night.shares(158))


def test_a_phase_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"each phase needs a row; got \[3, 0\]"):
        order(phases=[PhaseRows(3, {"web": 1.0}), PhaseRows(0, {"web": 1.0})])


def test_a_very_long_phase_takes_no_memory() -> None:
    phased = order(phases=[PhaseRows(10**12, {"web": 2.0, "code": 1.0})])
    assert np.bincount(chosen(phased, range(10**11, 10**11 + 3000)), minlength=3).tolist() == [2000, 1000, 0]


def test_phases_end_with_whole_steps() -> None:
    assert phase_ends([{"until": 0.8}, {"until": 1.0}], 1000) == [800, 1000]
    assert phase_ends([{"until": 0.335}, {"until": 1}], 10) == [3, 10]


def prepared(folder: Path, first: int, documents: int) -> Path:
    """Text rows whose first tokens count from ``first``."""
    tokens = np.repeat(np.arange(first, first + documents), SEQ_LEN).astype(np.uint16)
    tokens = np.append(tokens, tokens[-1])
    info = DatasetInfo("text", folder.name, "", 1, len(tokens), len(tokens), 0, "uint16", 1000, 0)
    folder.mkdir(parents=True)
    write_rows(folder, info, [tokens], np.array([len(tokens)]))
    return folder


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    members = {"a": prepared(tmp_path / "a", 100, 60), "b": prepared(tmp_path / "b", 200, 30)}
    spec = {"strategy": "interleave", "weights": "rows", "stop": "first_exhausted"}
    sources = {name: {"weight": 1.0, "epochs": 1.0} for name in members}
    phases = [{"until": 0.5, "weights": {"a": 3, "b": 1}}, {"until": 1.0, "weights": {"b": 1}}]
    (tmp_path / "mixed").mkdir()
    write_mixture(tmp_path / "mixed", "mixed", "", {**spec, "sources": sources, "phases": phases}, members)
    return tmp_path / "mixed"


def batches(mixture: Path, rank: int, ranks: int, seen: int, steps: int) -> list[list[int]]:
    loader = PreparedDataLoader(
        open_rows(mixture, SEQ_LEN),
        **{"local_batch_size": 4 // ranks, "global_batch_size": 4, "rank": rank, "ranks": ranks, "seed": 0, "steps": 6},
    )
    loader.load_state_dict({"rows_seen": seen})
    stream = iter(loader)
    return [next(stream)[0]["input"][:, 0].tolist() for _ in range(steps)]


def test_any_number_of_ranks_sees_the_same_phases_and_resumes_at_each_step(mixture: Path) -> None:
    whole = batches(mixture, 0, 1, 0, 6)
    halves = [batches(mixture, rank, 2, 0, 6) for rank in range(2)]
    assert [left + right for left, right in zip(*halves, strict=True)] == whole
    for killed in range(1, 6):
        assert batches(mixture, 0, 1, 4 * killed, 6 - killed) == whole[killed:]
        halves = [batches(mixture, rank, 2, 4 * killed, 6 - killed) for rank in range(2)]
        assert [left + right for left, right in zip(*halves, strict=True)] == whole[killed:]
    assert [sum(token < 200 for token in batch) for batch in whole] == [3, 3, 3, 0, 0, 0]


def test_phases_without_a_training_have_no_order(mixture: Path) -> None:
    with pytest.raises(ValueError, match="phases are shares of a training's steps"):
        open_rows(mixture, SEQ_LEN).order(0)
