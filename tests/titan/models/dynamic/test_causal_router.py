"""The router that looks at a token and the one before it, against its equation, in the families that have one."""

import pytest
import torch
from routed_models import cross_entropy_of, packed_positions, small_args, small_model, statistics_of

POSITIONS = packed_positions(9, 15, rows=3)
FIRST = POSITIONS == 0


@pytest.fixture(params=["mod", "dtf"])
def model(request):
    return small_model(request.param, capacity=0.25)


@pytest.fixture
def block(model):
    return model.layers["1"]


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(3, 24, 32, dtype=torch.float64)


def logits_of(router, x):
    """Token by token: of itself, and of the one before it where that is of the same document."""
    of_itself, of_previous = router.weight[0].split(32)
    logits = x @ of_itself + router.bias
    for row in range(3):
        for t in range(24):
            if not FIRST[row, t]:
                logits[row, t] = logits[row, t] + x[row, t - 1] @ of_previous
    return logits


def run(block, x, model):
    """The layer alone; a dtf's with scores that are no matter here."""
    told = [torch.rand(3, 24), torch.rand(3, 24)] if hasattr(block, "build_router") else []
    rest = (POSITIONS,) if told else (None, POSITIONS)
    return block(x, *told, model.rope_cache, *rest)


def chosen_by(block, x, model):
    """Bool [rows, seq_len]: what the layer takes."""
    marks, compute = [], block.compute

    def noted(x, gate, selection, *rest):
        marks.append(selection.mark(x.shape[1]))
        return compute(x, gate, selection, *rest)

    block.compute = noted
    run(block, x, model)
    return marks[0]


def test_evaluation_takes_the_tokens_above_zero(model, block, x):
    model.eval()
    wanted = logits_of(block.causal_router, x) > 0
    assert wanted.any()
    assert not wanted.all()
    assert torch.equal(chosen_by(block, x, model), wanted)


def test_it_is_trained_on_the_choice_and_leaves_the_stream_alone(model, block, x):
    terms = []
    block.with_losses = lambda x, losses: terms.append(losses) or x
    x.requires_grad_()
    marked = chosen_by(block, x, model)
    weight, loss = terms[0]["causal"]
    loss.backward()
    assert weight == 0.01
    assert loss.item() / 3 == pytest.approx(cross_entropy_of(logits_of(block.causal_router, x), marked), rel=1e-5)
    assert x.grad is None
    trained = {name for name, parameter in block.named_parameters() if parameter.grad is not None}
    assert trained == {"causal_router.weight", "causal_router.bias"}


def test_its_accuracy_is_of_the_choice(model, block, x):
    marked = chosen_by(block, x, model)
    statistics, predicted = statistics_of(model, 1), logits_of(block.causal_router, x) > 0
    assert statistics["predictor_accuracy"] == pytest.approx((predicted == marked).double().mean().item())
    assert statistics["predicted_fraction"] == pytest.approx(predicted.double().mean().item())


def test_nothing_of_the_familys_own_router_is_left(model):
    names = dict(model.named_parameters())
    assert not any(part in name for name in names for part in ("predictor", "threshold", "slope"))
    assert names["layers.1.causal_router.weight"].shape == (1, 64)


@pytest.mark.parametrize("family", ["mod", "dtf"])
def test_another_router_is_refused(family):
    with pytest.raises(ValueError, match="causal_router='next', expected previous or own"):
        small_args(family, causal_router="next")
