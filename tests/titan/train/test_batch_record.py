import pytest
import torch

from titan.train.batch_record import BatchRecord, batch_digest
from titanflow.runs.metrics import RECORD_BATCHES, read_metrics


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    inputs, labels = torch.randint(0, 256, (2, 8, 32), generator=random)
    labels[:, :4] = -100
    labels[:, 27:] = -100
    return inputs, labels


def test_neither_order_nor_division_nor_padding_counts(batch):
    inputs, labels = batch
    whole = batch_digest(inputs, labels)
    assert whole == sum(batch_digest(inputs[at : at + 2], labels[at : at + 2]) for at in range(0, 8, 2)) % 2**48
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    assert whole == batch_digest(inputs[order], labels[order])
    assert whole == batch_digest(inputs[:, :27], labels[:, :27])
    assert whole == batch_digest(torch.cat([inputs, inputs]), torch.cat([labels, torch.full_like(labels, -100)]))


def test_every_token_that_training_sees_counts(batch):
    inputs, labels = batch
    whole = batch_digest(inputs, labels)
    for place in range(27):
        other = inputs.clone()
        other[3, place] += 1
        assert batch_digest(other, labels) != whole
    other = labels.clone()
    other[5, 9] += 1
    assert batch_digest(inputs, other) != whole
    swapped = inputs.clone()
    swapped[[1, 2], 9] = swapped[[2, 1], 9]
    assert batch_digest(swapped, labels) != whole


def test_a_resumed_training_goes_on_with_the_record(tmp_path, monkeypatch, batch):
    monkeypatch.setenv(RECORD_BATCHES, "1")
    record = BatchRecord(tmp_path, None, writes=True)
    for step in (1, 2, 3):
        record.add(*batch)
        record.write(step)
    record.begin(2)
    lines = read_metrics(tmp_path / "batches.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert int(lines[0]["batch"], 16) == int(lines[1]["batch"], 16) == batch_digest(*batch)


def test_unasked_nothing_is_recorded(tmp_path, batch):
    record = BatchRecord(tmp_path, None, writes=True)
    record.begin(0)
    record.add(*batch)
    record.write(1)
    assert list(tmp_path.iterdir()) == []
