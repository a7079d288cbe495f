"""Documents of packed rows that a CPU attends to one by one, against the dense mask."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from packed_rows import FAMILIES, ROWS, batch_of, build, packing, summed_loss
from torch.utils.flop_counter import FlopCounterMode

from titan.models import documents
from titan.models.documents import CALL, DocumentAttention, DocumentMask, document_lengths, document_mask

Inputs = list[torch.Tensor]


def positions_of(rows: int, seq_len: int, cuts: int, seed: int = 0) -> torch.Tensor:
    """Positions of rows with documents of random lengths, ``cuts`` + 1 in each row."""
    draw, lengths = torch.Generator().manual_seed(seed), []
    for _ in range(rows):
        inner = (torch.randperm(seq_len - 1, generator=draw)[:cuts] + 1).sort().values.tolist()
        lengths += [end - start for start, end in pairwise([0, *inner, seq_len])]
    return torch.cat([torch.arange(length) for length in lengths]).view(rows, seq_len)


def masks(positions: torch.Tensor) -> tuple[DocumentMask, DocumentMask]:
    one_by_one, dense = DocumentMask(), DocumentMask()
    one_by_one.lengths, dense.mask = document_lengths(positions), document_mask(positions)
    return one_by_one, dense


def attended(mask: DocumentMask, inputs: Inputs, scale: float | None, grouped: bool) -> Inputs:
    """The output, and the gradients of queries, keys and values."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    output = DocumentAttention(mask)(*(one.transpose(1, 2) for one in leaves), scale=scale, enable_gqa=grouped)
    slope = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    output.backward(slope)
    return [output.detach(), *(one.grad for one in leaves)]


def qkv(rows: int, seq_len: int, kv_heads: int = 4, dtype: torch.dtype = torch.float32) -> Inputs:
    draw = torch.Generator().manual_seed(2)
    shapes = [(rows, seq_len, heads, 16) for heads in (4, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("cuts", [0, 1, 9, 127])
@pytest.mark.parametrize(("kv_heads", "scale"), [(4, None), (2, 0.3)])
def test_outputs_and_gradients_are_those_of_the_dense_mask(cuts: int, kv_heads: int, scale: float | None) -> None:
    one_by_one, dense = masks(positions_of(3, 128, cuts))
    inputs = qkv(3, 128, kv_heads, torch.float64)
    pairs = zip(*(attended(mask, inputs, scale, kv_heads < 4) for mask in (one_by_one, dense)), strict=True)
    assert all(torch.allclose(mine, theirs, rtol=0, atol=1e-12) for mine, theirs in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_loss_and_gradients_are_equal(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, positions, labels = batch_of(ROWS)
    found = []
    for call in (0, 1000):
        monkeypatch.setattr(documents, "CALL", call)
        model = packing(build(family))
        loss = summed_loss(model(inputs, positions=positions), labels)
        loss.backward()
        found.append([loss.detach(), *(one.grad for one in model.parameters())])
    errors = [float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(*found, strict=True)]
    assert max(errors) < 3e-6, errors


def test_ten_documents_cost_ten_small_squares() -> None:
    def operations(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    positions = torch.arange(32).repeat(10)[None]
    one_by_one, dense = (operations(lambda m=mask: attended(m, qkv(1, 320), None, False)) for mask in masks(positions))
    assert one_by_one * 10 == dense


def test_short_rows_keep_the_mask_and_whole_ones_need_none() -> None:
    def read(positions: torch.Tensor) -> tuple[bool, bool]:
        mask = DocumentMask()
        mask.read(positions, one_by_one=True)
        return mask.lengths is not None, mask.mask is not None

    assert read(positions_of(2, 4 * CALL, 3)) == (True, False)
    assert read(positions_of(2, CALL, 3)) == (False, True)
    assert read(positions_of(2, 4 * CALL, 0)) == (False, False)


def test_a_compiled_model_and_rows_that_are_not_packed_have_no_lengths() -> None:
    mask = DocumentMask()
    mask.read(positions_of(2, 4 * CALL, 3), one_by_one=False)
    assert (mask.lengths, mask.mask is None) == (None, False)
    mask.read(None, one_by_one=True)
    assert (mask.lengths, mask.mask) == (None, None)


def test_a_row_begins_a_document_whatever_its_first_position() -> None:
    assert document_lengths(torch.tensor([[3, 4, 0, 1], [0, 1, 2, 0]])) == [2, 2, 3, 1]
