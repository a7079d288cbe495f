"""DTF against its equations, token by token."""

import math
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
    some_tokens,
    statistics_of,
)

from titan.models.dtf import dtf_args
from titan.models.dtf.model.model import DecisionBlock, DtfModel, DynamicBlock
from titan.models.qwen2.model.model import TransformerBlock
from titan.models.remote_code.surprise import effective

POSITIONS = packed_positions(9, 15, rows=3)
WINDOW = 4


@pytest.fixture
def model():
    return small_model("dtf own", capacity=0.25, moving_average_window=WINDOW)


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(3, 24, 32, dtype=torch.float64)


def softplus(raw):
    return math.log1p(math.exp(raw.item()))


def decided(model, x):
    """The decision layer by its equations: H_post, D_st, D_ch and the prior's mean squared error."""
    block = model.layers["0"]
    norm = x / (x**2).mean(-1, keepdim=True).add(1e-6).sqrt() * block.prior_norm.weight
    gate, up, down = (getattr(block.prior, name).weight for name in ("gate", "up", "down"))
    prior = x + (torch.nn.functional.silu(norm @ gate.T) * (norm @ up.T)) @ down.T
    post = x + delta_of(block, x, torch.ones(3, 24, dtype=torch.bool), model.rope_cache, POSITIONS)
    return post, ((post - x) ** 2).mean(-1), ((post - prior) ** 2).mean(-1)


def scores_of(router, static, change):
    """S_CE, S_CU and G, one token after another."""
    s_ce, s_cu = torch.zeros_like(static), torch.zeros_like(static)
    for row in range(3):
        for t in range(24):
            first = max(t - int(POSITIONS[row, t]), t - WINDOW + 1)
            average = static[row, first : t + 1].mean()
            ce = static[row, t] - (change[row, t] - math.log(softplus(router.o_ce) + 1e-10))
            cu = static[row, t] - softplus(router.m_cu) * average
            s_ce[row, t] = torch.sigmoid(softplus(router.beta_ce) * ce)
            s_cu[row, t] = torch.sigmoid(softplus(router.beta_cu) * cu)
    return s_ce, s_cu, s_ce + s_cu - s_ce * s_cu


def run_pair(model, x):
    mask = (torch.arange(24)[:, None] >= torch.arange(24)) & (
        (torch.arange(24) - POSITIONS)[0][:, None] == (torch.arange(24) - POSITIONS)[0]
    )
    post, static, change = model.layers["0"](x, model.rope_cache, mask, POSITIONS)
    return post, static, change, model.layers["1"](post, static, change, model.rope_cache, POSITIONS)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_pair_of_layers(model, x, mode):
    getattr(model, mode)()
    router = model.layers["1"].router
    post, static, change = decided(model, x)
    *_, score = scores_of(router, static, change)
    if mode == "train":
        marked = highest(score, 0.25)
    else:
        router.threshold.data.fill_(score.quantile(0.5))
        marked = score > router.threshold
        assert 0.3 < marked.double().mean() < 0.7
    expected = post + score[..., None] * delta_of(model.layers["1"], post, marked, model.rope_cache, POSITIONS)
    found = run_pair(model, x)
    for one, other in zip(found, (post, static, change, expected), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    assert [one.dtype for one in found] == [torch.float64, torch.float32, torch.float32, torch.float64]


def test_losses_and_statistics(model, x):
    run_pair(model, x)
    router = model.layers["1"].router
    _, static, change = decided(model, x)
    s_ce, s_cu, score = scores_of(router, static, change)
    marked = highest(score, 0.25)
    logits = 10 * (score - router.threshold)
    # The prior's error is what D_ch measures.
    assert statistics_of(model, 0) == pytest.approx({"prior_loss": change.mean().item()}, rel=1e-5)
    assert statistics_of(model, 1) == pytest.approx(
        {
            "causal_loss": cross_entropy_of(logits, marked),
            "selected_fraction": 0.25,
            "predicted_fraction": (logits > 0).double().mean().item(),
            "predictor_accuracy": ((logits > 0) == marked).double().mean().item(),
            "S_CE": s_ce.mean().item(),
            "S_CU": s_cu.mean().item(),
            "G_cont": score.mean().item(),
            "D_st": static.mean().item(),
            "D_ch": change.mean().item(),
            "beta_ce": softplus(router.beta_ce),
            "beta_cu": softplus(router.beta_cu),
            "o_ce": softplus(router.o_ce),
            "m_cu": softplus(router.m_cu),
            "gate": score[marked].mean().item(),
        },
        rel=1e-4,
    )


def test_where_the_parameters_start():
    with torch.no_grad():
        model = DtfModel(small_args("dtf own"))
        for parameter in model.parameters():
            parameter.fill_(7)
        model.init_weights()
    for layer_id in ("1", "3"):
        router = model.layers[layer_id].router
        found = {
            name: effective(getattr(router, name)).item() for name in ("o_ce", "m_cu", "beta_ce", "beta_cu", "slope")
        }
        expected = {"o_ce": 1.025, "m_cu": 1.1, "beta_ce": 0.554, "beta_cu": 0.437, "slope": 10}
        assert found == pytest.approx(expected, abs=6e-4)
        assert router.threshold.item() == 0.75
        assert all(parameter.shape == (1,) for parameter in router.parameters())


def test_the_prior_s_loss_reaches_the_prior_alone(model, x):
    """Neither the layer that it foresees nor the stream below is pulled: a model from scratch would run away."""
    block, terms = model.layers["0"], []
    block.with_losses = lambda x, losses: terms.extend(losses.values()) or x
    run_pair(model, x.requires_grad_())
    (_, loss), *_ = terms
    loss.backward()
    assert block.prior.down.weight.grad.any()
    assert block.attention.wo.weight.grad is None
    assert block.feed_forward.w2.weight.grad is None
    assert x.grad is None


def test_the_threshold_leaves_the_score_alone(model, x):
    block, terms = model.layers["1"], []
    block.with_losses = lambda x, losses: terms.extend(losses.values()) or x
    run_pair(model, x)
    terms[-1][1].backward()
    assert block.router.threshold.grad.any()
    assert block.router.slope.grad.any()
    assert block.router.o_ce.grad is None
    assert model.layers["0"].prior.down.weight.grad is None


def test_layers_are_decision_and_dynamic_in_turn():
    with torch.device("meta"):
        model = DtfModel(small_args("dtf"))
    kinds = [type(layer) for layer in model.layers.values()]
    assert kinds == [DecisionBlock, DynamicBlock, DecisionBlock, DynamicBlock]
    assert isinstance(model.layers["0"], TransformerBlock)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 3}, "n_layers=3, expected an even number"),
        ({"moving_average_window": 0}, "moving_average_window=0, expected 1 or more"),
        ({"prior_factor": 0.0}, "prior_factor=0.0, expected above 0"),
    ],
)
def test_impossible_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_args("dtf", **changes)


@pytest.mark.parametrize(("causal_router", "router"), [("own", 6), ("previous", 4 + 2 * 384 + 1)])
def test_operations_a_token(causal_router, router):
    """The second of each two layers at half of the tokens, each of which sees half of the keys."""
    args, seq_len = replace(dtf_args["10M"], causal_router=causal_router), 512
    with torch.device("meta"):
        model = DtfModel(args)
    _, operations = args.get_nparams_and_flops(model, seq_len)
    prior, norms = 3 * 384 * 24, (6 * 2 + 3) * 384
    expected = 3 * (layer_operations(args, seq_len) + layer_operations(args, seq_len, 0.5))
    expected += 6 * (norms + 3 * (prior + router) + 384 * 2048)
    assert operations == pytest.approx(expected, rel=1e-6)


def test_the_score_knows_no_later_token(model):
    """It is the choice of a row's highest alone that does."""
    tokens = some_tokens()
    other = tokens.clone()
    other[:, 15:] = some_tokens(seed=8)[:, 15:]
    found = []
    for batch in (tokens, other):
        h = model.tok_embeddings(batch)
        mask = torch.ones(24, 24).tril().bool()
        _, static, change = model.layers["0"](h, model.rope_cache, mask)
        found.append(model.layers["1"].router(static, change, None).score)
    torch.testing.assert_close(found[0][:, :15], found[1][:, :15])
    assert not torch.equal(found[0], found[1])
