"""How much of an unpacked batch is padding."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_stages import write_chat_rows

from titan.train.dataloader import PreparedDataLoader
from titanflow.data.mixture import MixedRows, open_rows, write_mixture
from titanflow.data.prepared import PreparedRows

SEQ_LEN, CHATS, BATCH = 512, 2000, 8


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_rows(tmp_path_factory.mktemp("padding") / "chats", CHATS, seed=1, seq_len=SEQ_LEN)


def loader(
    rows: PreparedRows | MixedRows, by_length: bool, rank: int = 0, ranks: int = 1, local: int = BATCH
) -> PreparedDataLoader:
    sizes = {"local_batch_size": local, "global_batch_size": BATCH}
    return PreparedDataLoader(rows, **sizes, rank=rank, ranks=ranks, seed=5, trim=True, by_length=by_length)


def padding(rows: PreparedRows, by_length: bool) -> float:
    """The share of a whole epoch's columns that hold no token of a conversation."""
    batches = islice(loader(rows, by_length), CHATS // BATCH)
    columns = sum(input_dict["input"].numel() for input_dict, _ in batches)
    return 1 - rows.info.tokens / columns


def test_padding_is_less_than_a_twentieth_of_batches_grouped_by_length(chats: Path) -> None:
    rows = PreparedRows.open(chats, SEQ_LEN)
    assert padding(rows, by_length=False) > 0.4
    assert padding(rows, by_length=True) < 0.05


@pytest.mark.parametrize(("ranks", "local"), [(2, 4), (2, 2), (4, 1)])
def test_any_number_of_ranks_sees_the_same_batches(chats: Path, ranks: int, local: int) -> None:
    def seen(rank: int, ranks: int, local: int) -> list[torch.Tensor]:
        one = loader(PreparedRows.open(chats, SEQ_LEN), True, rank, ranks, local)
        batches = islice(one, 5 * BATCH // ranks // local)
        return [row[row != -100] for _, labels in batches for row in labels]

    def as_set(rows: list[torch.Tensor]) -> set[tuple[int, ...]]:
        return {tuple(row.tolist()) for row in rows}

    assert as_set([row for rank in range(ranks) for row in seen(rank, ranks, local)]) == as_set(seen(0, 1, BATCH))


def test_a_resumed_loader_goes_on_with_the_same_batches(chats: Path) -> None:
    rows = PreparedRows.open(chats, SEQ_LEN)
    whole = [labels for _, labels in islice(loader(rows, True), 60)]
    resumed = loader(rows, True)
    resumed.load_state_dict({"rows_seen": 47 * BATCH})
    assert all(torch.equal(mine, theirs) for (_, mine), theirs in zip(resumed, whole[47:], strict=False))


def test_rows_that_are_all_full_stay_in_their_order(tmp_path: Path) -> None:
    packed = PreparedRows.open(write_chat_rows(tmp_path / "packed", 200, 1, SEQ_LEN, packed=True), SEQ_LEN)
    orders = [loader(packed, by_length).order.at(np.arange(40)) for by_length in (False, True)]
    assert (orders[0] == orders[1]).all()


def test_a_mixture_groups_the_rows_of_all_its_sources(tmp_path: Path, chats: Path) -> None:
    members = {"a": chats, "b": write_chat_rows(tmp_path / "b", 500, seed=2, seq_len=SEQ_LEN)}
    spec = {"strategy": "concat", "weights": "rows", "stop": "all_exhausted"}
    (tmp_path / "mixture").mkdir()
    sources = {name: {"weight": 1.0, "epochs": 1.0} for name in members}
    write_mixture(tmp_path / "mixture", "mixture", "", {**spec, "sources": sources}, members)
    rows = open_rows(tmp_path / "mixture", SEQ_LEN)
    order = loader(rows, True).order
    found = order.at(np.arange(50 * BATCH)).reshape(-1, BATCH)
    spans = [rows.lengths(batch) for batch in found]
    assert max(span.max() - span.min() for span in spans) < 60
    for index in found[0]:
        assert rows.lengths(np.array([index]))[0] >= int((rows.row(int(index)).labels != -100).sum())
