from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from titan.weights.disk_tensors import DiskTensors, OnDisk, is_on_disk
from titanflow.common.errors import StageFailed


def test_a_tensor_on_disk_leaves_no_file_behind(tmp_path: Path) -> None:
    disk = DiskTensors(tmp_path)
    tensor = disk.empty((3, 4), torch.bfloat16).fill_(2)
    assert is_on_disk(tensor)
    assert tensor.sum() == 24
    assert list(tmp_path.iterdir()) == []
    assert disk.empty((0, 4), torch.float32).shape == (0, 4)


def test_only_what_lies_alone_in_its_file_is_not_copied(tmp_path: Path) -> None:
    disk = DiskTensors(tmp_path)
    whole = disk.empty((4, 4), torch.float32).copy_(torch.arange(16.0).view(4, 4))
    assert disk.stored(whole) is whole
    for other in (whole[1], whole.T, torch.ones(2)):
        copy = disk.stored(other)
        assert is_on_disk(copy)
        assert torch.equal(copy, other)
        assert copy.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


def test_a_model_is_built_with_its_parameters_on_disk_and_tied_ones_stay_one(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight
            self.register_buffer("angles", torch.arange(4.0).cos(), persistent=False)

    with torch.device("cpu"), OnDisk(DiskTensors(tmp_path)):
        model = Tied()
    assert model.head.weight is model.embedding.weight
    assert is_on_disk(model.head.weight)
    assert not is_on_disk(model.angles)
    assert torch.equal(model.angles, torch.arange(4.0).cos())


@pytest.mark.parametrize("join", [torch.stack, torch.cat])
def test_what_is_joined_lies_on_disk(tmp_path: Path, join: Callable[..., torch.Tensor]) -> None:
    parts = [torch.randn(2, 3) for _ in range(4)]
    with OnDisk(DiskTensors(tmp_path)):
        joined = join(parts, dim=1)
    assert is_on_disk(joined)
    assert torch.equal(joined, join(parts, dim=1))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no room for the weights"):
        DiskTensors(tmp_path).empty((1 << 50,), torch.float32)
    assert list(tmp_path.iterdir()) == []
