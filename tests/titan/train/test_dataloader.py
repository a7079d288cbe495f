from itertools import islice

import numpy as np
import pytest
import torch
from global_batch import global_batch
from tiny_stages import SEQ_LEN, VOCAB
from torchtitan.config.job_config import DataLoader as DataLoaderConfig
from torchtitan.models.llama3 import Transformer, TransformerModelArgs

from titan.train.dataloader import (
    WIDTH,
    MockRows,
    PreparedDataLoader,
    ValidationLoader,
    collate,
    collate_trimmed,
    rank_slice,
)
from titanflow.common.errors import ConfigError
from titanflow.data.order import Shuffled
from titanflow.data.prepared import PreparedRows, Row


@pytest.fixture
def rows(shared_data):
    return PreparedRows.open(shared_data / "train", SEQ_LEN)


def loader(rows, rank=0, ranks=1, local=4, size=8, seed=3, **more):
    return PreparedDataLoader(
        rows, local_batch_size=local, global_batch_size=size, rank=rank, ranks=ranks, seed=seed, **more
    )


def first_rows(batches):
    return [tuple(input_dict["input"][:, 0].tolist()) for input_dict, _ in batches]


def test_a_batch_holds_the_rows_of_the_order_and_their_targets(rows):
    input_dict, labels = next(iter(loader(rows, local=8)))
    expected = [rows.row(index) for index in global_batch(Shuffled(len(rows), 3), 0, 8)]
    assert torch.equal(input_dict["input"], torch.from_numpy(np.stack([row[0] for row in expected])))
    assert torch.equal(labels, torch.from_numpy(np.stack([row[1] for row in expected])))
    assert torch.equal(labels[:, :-1], input_dict["input"][:, 1:])
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(("ranks", "local"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2)])
def test_any_ranks_and_accumulation_see_the_same_global_batch(rows, ranks, local):
    steps, accumulation = 3, 8 // (ranks * local)
    seen = [set() for _ in range(steps)]
    for rank in range(ranks):
        batches = list(islice(loader(rows, rank, ranks, local), steps * accumulation))
        for number, (input_dict, _) in enumerate(batches):
            seen[number // accumulation] |= {tuple(row) for row in input_dict["input"].tolist()}
    for step in range(steps):
        expected = {tuple(rows.row(index)[0]) for index in global_batch(Shuffled(len(rows), 3), step, 8)}
        assert seen[step] == expected


def test_rows_that_another_training_has_seen_are_skipped_also_past_an_epoch_s_end(rows):
    # A global batch of 8 after 5 batches of 6: the skipped rows end in the middle of one.
    skipped = loader(rows, local=8, skip_rows=30)
    order = Shuffled(len(rows), 3)
    for step, (input_dict, _) in enumerate(islice(skipped, 2 * len(rows) // 8)):
        positions = np.arange(30 + step * 8, 30 + (step + 1) * 8)
        assert first_rows([(input_dict, None)]) == [tuple(int(rows.row(index)[0][0]) for index in order.at(positions))]
    assert skipped.state_dict() == {"rows_seen": 2 * len(rows) // 8 * 8}
    resumed = loader(rows, local=4, skip_rows=30)
    resumed.load_state_dict({"rows_seen": 16})
    expected = list(islice(loader(rows, local=4, skip_rows=30), 6))[4:]
    assert first_rows(islice(resumed, 2)) == first_rows(expected)


def test_microbatch_and_rank_cut_the_batch_as_documented():
    batch = np.arange(8)
    assert rank_slice(batch, accumulation=2, rank=0, ranks=2).tolist() == [[0, 1], [4, 5]]
    assert rank_slice(batch, accumulation=2, rank=1, ranks=2).tolist() == [[2, 3], [6, 7]]


def test_a_resume_goes_on_with_the_next_batch_on_any_number_of_ranks(rows):
    whole = loader(rows, local=8)
    batches = first_rows(islice(whole, 6))
    assert whole.state_dict() == {"rows_seen": 48}
    resumed = [loader(rows, rank, 2, 4) for rank in range(2)]
    for one in resumed:
        one.load_state_dict({"rows_seen": 32})
    halves = [first_rows(islice(one, 2)) for one in resumed]
    assert [left + right for left, right in zip(*halves, strict=True)] == batches[4:]


def test_the_state_counts_whole_batches_only(rows):
    accumulating = loader(rows, local=2)
    stream = iter(accumulating)
    for _ in range(3):
        next(stream)
    assert accumulating.state_dict() == {"rows_seen": 0}
    next(stream)
    assert accumulating.state_dict() == {"rows_seen": 8}


def test_a_state_in_the_middle_of_a_batch_is_refused(rows):
    with pytest.raises(ConfigError, match="12 rows, which is no multiple of the global batch of 8"):
        loader(rows).load_state_dict({"rows_seen": 12})


def test_the_next_epoch_has_every_row_again_in_another_order(rows):
    size = len(rows)
    one = loader(rows, local=size, size=size)
    first, second = (set(map(tuple, input_dict["input"].tolist())) for input_dict, _ in islice(one, 2))
    assert first == second
    assert len(global_batch(Shuffled(size, 3), 0, size)) == size
    assert global_batch(Shuffled(size, 3), 0, size).tolist() != global_batch(Shuffled(size, 3), 1, size).tolist()


def test_workers_change_nothing(rows):
    plain = first_rows(islice(loader(rows), 4))
    with_workers = loader(rows, settings=DataLoaderConfig(num_workers=1, prefetch_factor=2))
    assert first_rows(islice(with_workers, 4)) == plain
    assert with_workers.state_dict() == {"rows_seen": 16}


def test_mock_rows_are_the_vocabularys_and_always_the_same():
    rows = MockRows(VOCAB, SEQ_LEN)
    input_ids, labels, *_ = rows.row(5)
    assert input_ids.shape == labels.shape == (SEQ_LEN,)
    assert np.array_equal(labels[:-1], input_ids[1:])
    assert input_ids.min() >= 0
    assert input_ids.max() < VOCAB
    assert np.array_equal(MockRows(VOCAB, SEQ_LEN).row(5)[0], input_ids)
    assert not np.array_equal(rows.row(6)[0], input_ids)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_validation_gives_each_row_once_and_every_rank_as_many_batches(shared_data, ranks):
    rows = PreparedRows.open(shared_data / "validation", SEQ_LEN)
    counts, seen = [], []
    for rank in range(ranks):
        batches = list(ValidationLoader(rows, local_batch_size=4, rank=rank, ranks=ranks))
        counts.append(len(batches))
        for input_dict, labels in batches:
            assert input_dict["input"].shape == (4, SEQ_LEN)
            trained = (labels != -100).any(dim=1)
            seen += [tuple(row) for row in labels[trained].tolist()]
    assert len(set(counts)) == 1
    assert sorted(seen) == sorted(tuple(rows.row(index)[1].tolist()) for index in range(len(rows)))


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_validation_steps_mean_the_same_rows_on_any_number_of_ranks(shared_data, ranks):
    rows = PreparedRows.open(shared_data / "validation", SEQ_LEN)

    def validated(rank, ranks):
        batches = list(ValidationLoader(rows, local_batch_size=2, rank=rank, ranks=ranks, steps=5))
        assert len(batches) == -(-5 // ranks)
        return [tuple(row) for _, labels in batches for row in labels.tolist() if max(row) != -100]

    assert sorted(row for rank in range(ranks) for row in validated(rank, ranks)) == sorted(validated(0, 1))


def test_validation_steps_bound_the_batches(shared_data):
    rows = PreparedRows.open(shared_data / "validation", SEQ_LEN)
    assert len(list(ValidationLoader(rows, local_batch_size=4, rank=0, ranks=1, steps=2))) == 2
    assert len(list(ValidationLoader(rows, local_batch_size=4, rank=0, ranks=1, steps=999))) == -(-len(rows) // 4)


def test_a_trimmed_batch_has_the_same_loss_and_gradients():
    tokens = np.random.default_rng(0).integers(VOCAB, size=(4, SEQ_LEN))
    labels = np.where(np.arange(SEQ_LEN) < np.array([[3], [9], [5], [12]]), tokens, -100)
    rows = [Row(*pair) for pair in zip(tokens, labels, strict=True)]
    whole, trimmed = collate(rows), collate_trimmed(rows)
    assert trimmed[1].shape[1] < whole[1].shape[1]
    assert (whole[1] != -100).sum() == (trimmed[1] != -100).sum()
    torch.manual_seed(0)
    model = Transformer(TransformerModelArgs(dim=32, n_layers=2, n_heads=2, vocab_size=VOCAB, max_seq_len=SEQ_LEN))
    with torch.no_grad():
        model.init_weights()
    losses, gradients = [], []
    for inputs, labels in (whole, trimmed):
        logits = model(inputs["input"]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=-100)
        losses.append(loss.detach())
        gradients.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, model.parameters())]))
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)


def test_a_batch_that_trains_nothing_keeps_some_columns():
    rows = [Row(np.arange(64), np.full(64, -100))] * 2
    inputs, labels = collate_trimmed(rows)
    assert inputs["input"].shape == labels.shape == (2, WIDTH)
