import pytest
import torch
from torch.utils.checkpoint import checkpoint

from titan.models.dynamic.auxiliary import attach_loss, choice_loss, choice_statistics, row_sum


def gradients(attached, weight=0.3):
    x, w = (torch.tensor([2.0, 3.0], requires_grad=True) for _ in range(2))
    loss = (w**2).sum() * x.sum()
    if attached:
        (attach_loss(x * 2, loss, weight).sum() * 5).backward()
    else:
        ((x * 2).sum() * 5 + weight * loss).backward()
    return x.grad, w.grad


def test_the_gradient_is_that_of_the_sum():
    """However what comes after scales: the loss's own scale is all that counts."""
    for found, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_value_stays():
    x = torch.randn(3, requires_grad=True)
    assert torch.equal(attach_loss(x, x.sum(), 7.0), x)


def test_a_loss_in_another_type_gets_its_gradient_in_its_own():
    x, w = torch.ones(2, dtype=torch.bfloat16, requires_grad=True), torch.ones(1, requires_grad=True)
    attach_loss(x, w.sum(), 0.1).sum().backward()
    assert (w.grad.dtype, w.grad.item()) == (torch.float32, pytest.approx(0.1))


def test_recomputed_activations_count_it_once():
    w = torch.ones(1, requires_grad=True)
    x = torch.ones(2, requires_grad=True)
    checkpoint(lambda x: attach_loss(x, (w**2).sum(), 0.5), x, use_reentrant=False).sum().backward()
    assert w.grad.item() == 1.0


def test_the_mean_of_a_row_summed_over_rows():
    assert row_sum(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).item() == 7.0


def test_cross_entropy_in_closed_form():
    logits, chosen = torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[True, True, False]])
    likelihoods = [torch.tensor(0.5), torch.sigmoid(logits[0, 1]), 1 - torch.sigmoid(logits[0, 2])]
    expected = -torch.log(torch.stack(likelihoods))
    torch.testing.assert_close(choice_loss(logits, chosen)[0], expected)


def test_what_is_told_of_a_choice():
    statistics = choice_statistics(torch.tensor([[1.0, -1.0, 1.0, 0.0]]), torch.tensor([[True, True, False, False]]))
    assert {name: value.item() for name, value in statistics.items()} == {
        "selected_fraction": 0.5,
        "predicted_fraction": 0.5,
        "predictor_accuracy": 0.5,
    }
