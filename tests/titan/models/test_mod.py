"""Mixture-of-Depths against its equations, token by token."""

from dataclasses import replace

import pytest
import torch
from routed_models import (
    cross_entropy_of,
    delta_of,
    highest,
    layer_operations,
    packed_positions,
    small_args,
    small_model,
    statistics_of,
)

from titan.models.mod import mod_args
from titan.models.mod.model.model import ModBlock, ModModel

POSITIONS = packed_positions(9, 15, rows=3)


@pytest.fixture
def model():
    return small_model("mod", capacity=0.25)


@pytest.fixture
def x(model):
    torch.manual_seed(3)
    return torch.randn(3, 24, 32, dtype=torch.float64)


def test_training_takes_the_highest_scores_times_their_gate(model, x):
    block = model.layers["1"]
    scores = (x @ block.router.weight.T)[..., 0]
    marked = highest(scores, 0.25)
    gated = torch.sigmoid(scores)[..., None] * delta_of(block, x, marked, model.rope_cache, POSITIONS)
    torch.testing.assert_close(block(x, model.rope_cache, None, POSITIONS), x + gated, rtol=1e-6, atol=1e-6)


@pytest.fixture
def own():
    return small_model("mod own", capacity=0.25)


def test_evaluation_takes_what_the_predictor_says(own, x):
    model = own.eval()
    block = model.layers["1"]
    predictor = block.predictor
    hidden = x @ predictor.down.weight.T + predictor.down.bias
    logits = (hidden * torch.sigmoid(hidden)) @ predictor.score.weight.T + predictor.score.bias
    marked = torch.sigmoid(logits[..., 0]) > 0.5
    assert marked.any()
    assert not marked.all()
    scores = torch.sigmoid(x @ block.router.weight.T)
    gated = scores * delta_of(block, x, marked, model.rope_cache, POSITIONS)
    torch.testing.assert_close(block(x, model.rope_cache, None, POSITIONS), x + gated, rtol=1e-6, atol=1e-6)


def test_losses_and_statistics(own, x):
    model, block = own, own.layers["3"]
    block(x, model.rope_cache, None, POSITIONS)
    scores = (x @ block.router.weight.T)[..., 0]
    marked, predicted = highest(scores, 0.25), block.predictor(x)
    assert statistics_of(model, 3) == pytest.approx(
        {
            "aux_loss": cross_entropy_of(scores, marked),
            "causal_loss": cross_entropy_of(predicted, marked),
            "z_loss": (scores**2).mean().item(),
            "selected_fraction": 0.25,
            "predicted_fraction": (predicted > 0).double().mean().item(),
            "predictor_accuracy": ((predicted > 0) == marked).double().mean().item(),
            "gate": torch.sigmoid(scores)[marked].mean().item(),
        },
        rel=1e-5,
    )


def test_the_predictor_changes_nothing_of_what_it_looks_at(own, x):
    block = own.layers["1"]
    x.requires_grad_()
    block.predictor(x).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize(("route_every", "expected"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (4, [3])])
def test_which_layers_are_routed(route_every, expected):
    args = small_args("mod", route_every=route_every)
    with torch.device("meta"):
        model = ModModel(args)
    found = [layer.layer_id for layer in model.layers.values() if isinstance(layer, ModBlock)]
    assert found == expected
    assert args.routed_layers == len(expected)


@pytest.mark.parametrize("route_every", [0, 5])
def test_a_model_without_a_routed_layer_is_refused(route_every):
    with pytest.raises(ValueError, match=rf"route_every={route_every}, expected 1 to n_layers=4"):
        small_args("mod", route_every=route_every)


@pytest.mark.parametrize(("router", "chooser"), [("own", 384 * 192 + 192 + 192 + 1), ("previous", 2 * 384 + 1)])
def test_operations_a_token(router, chooser):
    """Half of the layers at an eighth of the tokens, each of which sees an eighth of the keys."""
    args, seq_len = replace(mod_args["10M"], causal_router=router), 512
    with torch.device("meta"):
        model = ModModel(args)
    parameters, operations = args.get_nparams_and_flops(model, seq_len)
    norms = 6 * 2 * 384
    expected = 3 * (layer_operations(args, seq_len) + layer_operations(args, seq_len, 1 / 8))
    expected += 6 * (norms + 3 * (384 + chooser) + 384 * 2048)
    assert operations == pytest.approx(expected, rel=1e-6)
    assert parameters == sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values()) - (
        0 if model.output.weight is model.tok_embeddings.weight else 384 * 2048
    )
