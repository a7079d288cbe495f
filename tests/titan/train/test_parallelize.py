from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchtitan.components.loss import build_cross_entropy_loss, cross_entropy_loss

from titan.train.data_parallel import (
    ScaledGradient,
    StageLoss,
    equal_to_one_process,
    freeze_all_but,
    initialize_whole,
    with_summed_gradients,
)


def test_a_scaled_gradient_leaves_the_value_alone():
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    loss = (weight**2).sum()
    scaled = ScaledGradient.apply(loss, 4)
    assert scaled.item() == loss.item()
    scaled.backward()
    assert weight.grad.tolist() == [16.0, 24.0]


@pytest.mark.parametrize(("replicate", "fsdp", "factor"), [(True, False, 2), (True, True, 1), (False, True, 1)])
def test_only_ddp_divides_and_so_only_its_gradients_are_scaled(replicate, fsdp, factor):
    dims = SimpleNamespace(dp_replicate_enabled=replicate, fsdp_enabled=fsdp, dp_replicate=2)
    config = SimpleNamespace(compile=SimpleNamespace(enable=False))
    loss_fn = with_summed_gradients(build_cross_entropy_loss)(config, parallel_dims=dims)
    predictions = torch.randn(1, 5, 7, requires_grad=True)
    labels = torch.tensor([[1, 2, -100, 3, 4]])
    (gradient,) = torch.autograd.grad(loss_fn(predictions, labels), predictions)
    plain = build_cross_entropy_loss(config)(predictions, labels)
    (expected,) = torch.autograd.grad(plain, predictions)
    assert loss_fn(predictions, labels).item() == plain.item()
    assert torch.equal(gradient, factor * expected)


def test_a_pipelines_gradients_are_divided_by_the_tokens():
    loss_fn = StageLoss(cross_entropy_loss)
    predictions = torch.randn(1, 4, 7, requires_grad=True)
    labels = torch.tensor([[1, 2, -100, 3]])
    (whole,) = torch.autograd.grad(loss_fn(predictions, labels), predictions)
    loss_fn.tokens = 3.0
    (mean,) = torch.autograd.grad(loss_fn(predictions, labels), predictions)
    assert torch.allclose(mean, whole / 3)


class Tiny(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def init_weights(self, buffer_device=None):
        nn.init.normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)


def test_weights_depend_on_the_seed_alone():
    drawn = []
    for is_distributed in (False, True, False):
        torch.manual_seed(5)
        model = Tiny(3)
        torch.randn(17)
        initialize_whole(model, Tiny, 3, is_distributed)
        with torch.no_grad():
            model.init_weights()
        drawn.append(model.linear.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_what_was_frozen_stays_so_though_parameters_are_new_and_renamed():
    model = nn.Sequential()
    model.add_module("_checkpoint_wrapped_module", Tiny(3))
    freeze_all_but(model, {"linear.bias"})
    assert [parameter.requires_grad for parameter in (model[0].linear.weight, model[0].linear.bias)] == [False, True]


def test_a_family_that_thaws_what_it_parallelises_is_put_right():
    def parallelize(model, parallel_dims, job_config):
        model.linear.weight = nn.Parameter(model.linear.weight.detach().clone())
        return model

    model = Tiny(3)
    model.linear.weight.requires_grad_(False)
    model = equal_to_one_process(parallelize)(model, SimpleNamespace(tp_enabled=False), SimpleNamespace())
    assert not model.linear.weight.requires_grad
    assert model.linear.bias.requires_grad
