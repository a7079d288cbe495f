import pytest
import torch

from titan.models.documents import document_mask
from titan.models.dynamic.routing import Selection, capacity, select_top, select_where


@pytest.mark.parametrize(
    ("seq_len", "share", "expected"),
    [(8, 0.5, 4), (9, 0.5, 4), (8, 0.125, 1), (7, 0.125, 1), (1, 0.5, 1), (5, 1.0, 5), (100, 0.29, 29)],
)
def test_the_share_of_a_row_is_rounded_down_but_never_nothing(seq_len, share, expected):
    assert capacity(seq_len, share) == expected


def test_the_highest_of_each_row_in_their_order():
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.8], [4.0, 1.0, 2.0, 3.0]])
    selection = select_top(scores, 0.5)
    assert selection.indices.tolist() == [[1, 3], [0, 3]]
    assert selection.is_selected is None
    assert selection.mark(4).tolist() == [[False, True, False, True], [True, False, False, True]]


def test_rows_of_which_unequally_many_are_chosen_are_filled_up_behind():
    chosen = torch.tensor([[False, True, False, True], [False, False, True, False], [False] * 4])
    selection = select_where(chosen)
    assert selection.indices[:, 0].tolist()[:2] == [1, 2]
    assert selection.is_selected.tolist() == [[True, True], [True, False], [False, False]]
    assert torch.equal(selection.mark(4), chosen)


@pytest.mark.parametrize("everything", [True, False])
def test_all_and_none(everything):
    selection = select_where(torch.full((2, 3), everything))
    assert selection.indices.shape == (2, 3 if everything else 0)
    assert selection.mark(3).all() == everything


def test_what_is_taken_and_put_back():
    x = torch.arange(24.0).view(2, 4, 3)
    chosen = torch.tensor([[False, True, False, True], [False, False, True, False]])
    selection = select_where(chosen)
    taken = selection.take(x)
    assert torch.equal(taken[0], x[0, [1, 3]])
    assert torch.equal(taken[1, 0], x[1, 2])
    put = selection.put(x, taken + 100)
    assert torch.equal(put[chosen], x[chosen] + 100)
    assert torch.equal(put[~chosen], x[~chosen])
    assert torch.equal(selection.take(x[..., 0]), taken[..., 0])


def test_gradients_reach_what_is_taken_and_what_is_not():
    x = torch.ones(1, 3, 1, requires_grad=True)
    selection = Selection(torch.tensor([[1]]))
    selection.put(x, 5 * selection.take(x)).sum().backward()
    assert x.grad.flatten().tolist() == [1, 5, 1]


def test_the_mask_is_that_of_whole_rows_cut_out():
    """Of random choices in packed rows: what a selected token sees are the selected tokens that it saw."""
    torch.manual_seed(0)
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 0, 0, 1]])
    selection = select_top(torch.rand(2, 10), 0.6)
    whole = document_mask(positions)[:, 0]
    expected = torch.stack([row[at][:, at] for row, at in zip(whole, selection.indices, strict=True)])
    assert torch.equal(selection.mask(positions)[:, 0], expected)
    assert not expected.all()
    assert selection.mask(None) is None


def test_what_fills_a_row_up_is_seen_by_no_selected_token():
    """Though it stands in the same document, and before the token in the row."""
    selection = select_where(torch.tensor([[False, False, True], [True, True, True]]))
    seen = selection.mask(torch.arange(3).expand(2, -1))[0, 0]
    assert seen[0].tolist() == [True, False, False]
