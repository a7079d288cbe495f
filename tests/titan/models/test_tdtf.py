"""TDTF against its equations, token by token."""

import math

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

from titan.models.documents import document_mask
from titan.models.qwen2.model.model import TransformerBlock
from titan.models.remote_code.surprise import effective
from titan.models.tdtf import tdtf_args
from titan.models.tdtf.model.model import TdtfBlock, TdtfModel, scheduled_beta

POSITIONS = packed_positions(9, 15, rows=3)
MASK = document_mask(POSITIONS)
WINDOW, BETA = 4, 2.5


@pytest.fixture
def model():
    model = small_model("tdtf", capacity=0.25, moving_average_window=WINDOW)
    for block in model.auxiliary_blocks():
        block.beta.fill_(BETA)
    return model


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(3, 24, 32, dtype=torch.float64)


def softplus(raw):
    return math.log1p(math.exp(raw.item()))


def rms_norm(x, weight):
    return x / (x**2).mean(-1, keepdim=True).add(1e-6).sqrt() * weight


def token_before(x):
    """A loop over tokens; a document's first has nothing before it."""
    result = torch.zeros_like(x)
    for row in range(3):
        for t in range(24):
            if POSITIONS[row, t] > 0:
                result[row, t] = x[row, t - 1]
    return result


def taught(block, model, x):
    """The teacher's equations: D_st, D_ch, S_CE, S_CU, G."""
    delta = delta_of(block, x, torch.ones(3, 24, dtype=torch.bool), model.rope_cache, POSITIONS)
    gate, up, down = (getattr(block.transition, name).weight for name in ("gate", "up", "down"))
    norm = rms_norm(token_before(x + delta), block.transition_norm.weight)
    foreseen = (torch.nn.functional.silu(norm @ gate.T) * (norm @ up.T)) @ down.T
    static, change = (delta**2).mean(-1), ((delta - foreseen) ** 2).mean(-1)
    s_ce, s_cu = torch.zeros_like(static), torch.zeros_like(static)
    for row in range(3):
        for t in range(24):
            first = max(t - int(POSITIONS[row, t]), t - WINDOW + 1)
            average = static[row, first : t + 1].mean()
            ce = static[row, t] - (change[row, t] - math.log(softplus(block.router.o_ce) + 1e-10))
            cu = static[row, t] - softplus(block.router.m_cu) * average
            s_ce[row, t], s_cu[row, t] = torch.sigmoid(BETA * ce), torch.sigmoid(BETA * cu)
    return static, change, s_ce, s_cu, s_ce + s_cu - s_ce * s_cu


def student_logits(block, x):
    now, before = (rms_norm(one, block.student_norm.weight) for one in (x, token_before(x)))
    return (torch.cat([now, before], -1) @ block.student.weight.T + block.student.bias)[..., 0]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_routed_layer(model, x, mode):
    getattr(model, mode)()
    block = model.layers["1"]
    if mode == "train":
        marked = highest(taught(block, model, x)[-1], 0.25)
    else:
        marked = torch.sigmoid(student_logits(block, x)) > 0.5
        assert 0.1 < marked.double().mean() < 0.9
    expected = x + delta_of(block, x, marked, model.rope_cache, POSITIONS)
    found = block(x, model.rope_cache, MASK, POSITIONS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_losses_and_statistics(model, x):
    block = model.layers["1"]
    block(x, model.rope_cache, MASK, POSITIONS)
    static, change, s_ce, s_cu, score = taught(block, model, x)
    marked, logits = highest(score, 0.25), student_logits(block, x)
    assert statistics_of(model, 1) == pytest.approx(
        {
            # What wasn't foreseen is what D_ch measures.
            "tpn_loss": change.mean().item(),
            "causal_loss": cross_entropy_of(logits, marked),
            "selected_fraction": 0.25,
            "predicted_fraction": (logits > 0).double().mean().item(),
            "predictor_accuracy": ((logits > 0) == marked).double().mean().item(),
            "S_CE": s_ce.mean().item(),
            "S_CU": s_cu.mean().item(),
            "G_cont": score.mean().item(),
            "D_st": static.mean().item(),
            "D_ch": change.mean().item(),
            "beta_ce": BETA,
            "beta_cu": BETA,
            "o_ce": softplus(block.router.o_ce),
            "m_cu": softplus(block.router.m_cu),
        },
        rel=1e-4,
    )


def recorded(block):
    """Where the block's losses go in place of the backward pass: tpn, causal."""
    terms = []
    block.with_losses = lambda x, losses: terms.extend(loss for _, loss in losses.values()) or x
    return terms


def test_nothing_learns_through_the_teacher(model, x):
    """The transition network learns what the layer does, not the other way round."""
    block = model.layers["1"]
    terms = recorded(block)
    block(x.requires_grad_(), model.rope_cache, MASK, POSITIONS)
    terms[0].backward()
    assert x.grad is None
    assert block.transition.down.weight.grad.any()
    assert all(p.grad is None for part in (block.attention, block.feed_forward) for p in part.parameters())
    assert block.router.o_ce.grad is None


def test_the_student_leaves_what_it_looks_at_alone(model, x):
    block = model.layers["1"]
    terms = recorded(block)
    x.requires_grad_()
    block(x, model.rope_cache, MASK, POSITIONS)
    terms[1].backward()
    assert block.student.weight.grad.any()
    assert block.student_norm.weight.grad.any()
    assert x.grad is None


def test_the_router_learns_from_what_the_selected_tokens_gained(model, x):
    """Though the gate is 1: ∂L/∂o_ce = Σ over selected tokens of ⟨∂L/∂x', f⟩ · ∂G/∂o_ce, by finite differences."""
    block = model.layers["1"]
    recorded(block)
    target = torch.randn_like(x)
    marked = highest(taught(block, model, x)[-1], 0.25)
    (block(x, model.rope_cache, MASK, POSITIONS) * target).sum().backward()
    gained = (delta_of(block, x, marked, model.rope_cache, POSITIONS) * target).sum(-1)
    step, scores = 1e-4, []
    for sign in (1, -1):
        with torch.no_grad():
            block.router.o_ce += sign * step
            scores.append(taught(block, model, x)[-1])
            block.router.o_ce -= sign * step
    expected = (gained * (scores[0] - scores[1]) / (2 * step) * marked).sum().item()
    assert block.router.o_ce.grad.item() == pytest.approx(expected, rel=1e-3)
    assert abs(expected) > 1e-4


def test_the_teacher_isnt_asked_in_evaluation(model, x):
    block = model.layers["1"].eval()
    seen = []
    block.transition.register_forward_hook(lambda *_: seen.append(1))
    block(x, model.rope_cache, MASK, POSITIONS)
    assert not seen


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1, 0.3), (100, 0.3), (150, 0.3 + (1 - math.cos(math.pi / 4)) / 2 * 5.7), (200, 3.15), (300, 6.0), (400, 6.0)],
)
def test_the_sharpness_follows_a_cosine_after_its_warm_up(step, expected):
    assert scheduled_beta(tdtf_args["10M"], step, 300) == 0.3
    args = small_args("tdtf", beta_warmup_steps=100)
    assert scheduled_beta(args, step, 300) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 100])
def test_a_stage_that_is_all_warm_up_stays_at_the_start(steps):
    assert scheduled_beta(small_args("tdtf", beta_warmup_steps=100), steps, steps) == 0.3


def test_a_step_sets_the_sharpness_of_all_layers_and_no_checkpoint_holds_it():
    model = small_model("tdtf", beta_warmup_steps=0, beta_start=1.0, beta_end=2.0)
    model.begin_step(5, 10)
    assert [block.beta.item() for block in model.auxiliary_blocks()] == [1.5, 1.5]
    assert not [name for name in model.state_dict() if "beta" in name]
    with torch.no_grad():
        model.init_weights()
    assert [block.beta.item() for block in model.auxiliary_blocks()] == [1.0, 1.0]


def test_where_the_parameters_start():
    with torch.no_grad():
        model = TdtfModel(small_args("tdtf"))
        for parameter in model.parameters():
            parameter.fill_(7)
        model.init_weights()
    block = model.layers["1"]
    assert effective(block.router.o_ce).item() == pytest.approx(1.025, abs=1e-4)
    assert effective(block.router.m_cu).item() == pytest.approx(1.1, abs=1e-4)
    assert block.student.bias.item() == 0
    assert (block.transition_norm.weight == 1).all()
    assert (block.student_norm.weight == 1).all()
    assert block.student.weight.shape == (1, 64)


def test_every_second_layer_is_routed():
    with torch.device("meta"):
        model = TdtfModel(small_args("tdtf", n_layers=5))
    kinds = [type(layer) for layer in model.layers.values()]
    assert kinds == [TransformerBlock, TdtfBlock, TransformerBlock, TdtfBlock, TransformerBlock]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 1}, "n_layers=1, expected 2 or more"),
        ({"moving_average_window": 0}, "moving_average_window=0, expected 1 or more"),
        ({"beta_start": 0.0}, "beta_start=0.0, expected above 0"),
        ({"beta_warmup_steps": -1}, "beta_warmup_steps=-1, expected 0 or more"),
    ],
)
def test_impossible_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_args("tdtf", **changes)


def test_operations_a_token():
    """Of a routed layer half of the tokens, and all of them once more forward, which is a third of the work."""
    args, seq_len = tdtf_args["10M"], 512
    with torch.device("meta"):
        model = TdtfModel(args)
    _, operations = args.get_nparams_and_flops(model, seq_len)
    own = 3 * 384 * 24 + 2 * 384 + 1 + 2 * 384 + 2
    dense = layer_operations(args, seq_len)
    expected = 3 * (dense + layer_operations(args, seq_len, 0.5) + dense / 3)
    expected += 6 * (6 * 2 * 384 + 3 * own + 384 * 2048)
    assert operations == pytest.approx(expected, rel=1e-6)


def test_a_trained_models_evaluation_depends_on_no_schedule(model):
    model.eval()
    tokens, found = some_tokens(), []
    for beta in (0.3, 6.0):
        for block in model.auxiliary_blocks():
            block.beta.fill_(beta)
        found.append(model(tokens))
    assert torch.equal(*found)
