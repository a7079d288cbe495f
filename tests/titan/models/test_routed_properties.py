"""What holds of every model with routed layers."""

import contextlib

import pytest
import torch
from routed_models import (
    KINDS,
    SEQ_LEN,
    SHAPE,
    centred,
    chosen_in,
    decider,
    family_of,
    language_loss,
    packed_positions,
    small_args,
    small_model,
    some_tokens,
)
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims

from titan.models.dynamic.model import RoutedBlock
from titan.models.dynamic.parallelize import parallelize_routed
from titan.models.lora import add_adapters, is_adapter, plain_name
from titan.models.qwen2.model.args import Qwen2ModelArgs
from titan.models.qwen2.model.model import Qwen2Model
from titanflow.config.keys.training import Lora

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", KINDS)]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
"""The routers compute in fp32, whatever the model does."""
LOSSES = {
    "mod": {"aux_loss", "causal_loss", "z_loss"},
    "dtf": {"prior_loss", "causal_loss"},
    "tdtf": {"tpn_loss", "causal_loss"},
}


def routed_layers(model):
    return [module for module in model.modules() if isinstance(module, RoutedBlock)]


def dense_model():
    args = {name: value for name, value in SHAPE.items() if name != "capacity"}
    return Qwen2Model(Qwen2ModelArgs(**args, rope_theta=10_000.0, enable_weight_tying=True)).double()


def outputs(model, tokens, positions=None):
    with torch.no_grad():
        return model(tokens, positions=positions)


def gradients(model):
    return {plain_name(name): parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("lengths", [(SEQ_LEN,), (9, 4, 11)])
def test_all_tokens_ungated_are_the_dense_model(kind, lengths):
    """The gate is made 1 where the layer applies it; TDTF's is 1 by itself."""
    model = small_model(kind, capacity=1.0)
    dense = dense_model()
    missing, _ = dense.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    if family_of(kind) != "tdtf":
        for layer in routed_layers(model):
            gated = layer.compute
            layer.compute = lambda x, gate, *rest, gated=gated: gated(x, torch.ones_like(gate), *rest)
    positions = packed_positions(*lengths, rows=3)
    tokens = some_tokens()
    unmasked = outputs(dense, tokens[:, : lengths[0]])
    torch.testing.assert_close(outputs(model, tokens, positions)[:, : lengths[0]], unmasked, **CLOSE)
    if len(lengths) == 1:
        torch.testing.assert_close(outputs(model, tokens), unmasked, **CLOSE)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_rows_may_change_places(kind, mode):
    model = getattr(small_model(kind), mode)()
    tokens, order = some_tokens(4), [2, 0, 3, 1]
    torch.testing.assert_close(outputs(model, tokens[order]), outputs(model, tokens)[order], **CLOSE)


def changes_before(model, tokens, column):
    """How much the outputs before a column change with its token."""
    other = tokens.clone()
    other[:, column] = (other[:, column] + 1) % 64
    return (outputs(model, tokens) - outputs(model, other))[:, :column].abs().max()


def test_a_later_token_changes_nothing_before_it_in_evaluation(kind):
    model, tokens = small_model(kind), some_tokens(6)
    assert max(changes_before(model, tokens, column) for column in range(12, SEQ_LEN)) > 0.1
    model.eval()
    taken = chosen_in(model, tokens)
    assert all(0.1 < marked.float().mean() < 0.9 for marked in taken.values())
    assert max(changes_before(model, tokens, column) for column in range(1, SEQ_LEN)) < 1e-5


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_is_passed_by_stays_bit_for_bit(kind, mode):
    model, tokens = getattr(small_model(kind), mode)(), some_tokens()
    taken = chosen_in(model, tokens)
    seen = {}
    for layer in routed_layers(model):
        layer.register_forward_hook(lambda layer, args, out: seen.update({layer.layer_id: (args[0], out)}))
    outputs(model, tokens)
    assert set(seen) == set(taken) == {1, 3}
    for layer_id, (before, after) in seen.items():
        marked = taken[layer_id]
        assert torch.equal(before[~marked], after[~marked])
        assert (before[marked] != after[marked]).any(-1).all()


def test_all_that_routes_learns(kind):
    model = small_model(kind)
    dense = {plain_name(name) for name, _ in dense_model().named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for seed in range(2):
        optimizer.zero_grad()
        language_loss(model, some_tokens(seed=seed)).backward()
        silent = [name for name, gradient in gradients(model).items() if gradient is None or not gradient.any()]
        assert not silent
        optimizer.step()
    routing = {"mod": 2 * 3, "mod own": 2 * 5, "dtf": 2 * 4 + 2 * 6, "dtf own": 2 * 4 + 2 * 6, "tdtf": 2 * 9}
    assert len(set(gradients(model)) - dense) == routing[kind]


def test_one_row_is_computed_as_four_are(kind):
    model, tokens = small_model(kind).eval(), some_tokens(4)
    one_by_one = torch.cat([outputs(model, row[None]) for row in tokens])
    torch.testing.assert_close(outputs(model, tokens), one_by_one, **CLOSE)


def test_packed_documents_are_computed_as_if_alone(kind):
    model, tokens, lengths = small_model(kind).eval(), some_tokens(3), (1, 9, 3, 11)
    packed = outputs(model, tokens, packed_positions(*lengths, rows=3))
    alone = [outputs(model, document) for document in tokens.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), **CLOSE)


def test_a_packed_document_sees_no_other(kind):
    """In training, too, but that a row's documents share its budget; here it takes all."""
    model, positions = small_model(kind, capacity=1.0), packed_positions(7, 9, 8, rows=3)
    tokens = some_tokens()
    other = tokens.clone()
    other[:, 7:16] = some_tokens(seed=5)[:, 7:16]
    for mode in (model.train, model.eval):
        mode()
        change = (outputs(model, tokens, positions) - outputs(model, other, positions)).abs().amax((0, 2))
        assert change[7:16].max() > 0.1
        assert max(change[:7].max(), change[16:].max()) < 1e-5


@pytest.mark.parametrize("microbatches", [1, 4])
def test_attached_losses_are_those_of_the_whole_loss(kind, microbatches):
    """L_LM + Σ weight · mean over layers, rows and tokens, in one batch and without an attached loss."""
    tokens, positions = some_tokens(4), packed_positions(10, 14, rows=4)
    attached = small_model(kind)
    attached.set_auxiliary_scale(1 / 4)
    for rows, places in zip(tokens.chunk(microbatches), positions.chunk(microbatches), strict=True):
        (language_loss(attached, rows, places) / microbatches).backward()

    explicit, terms = small_model(kind), []
    for block in explicit.auxiliary_blocks():
        block.with_losses = lambda x, losses: terms.extend(losses.values()) or x
    language = language_loss(explicit, tokens, positions)
    # Two layers of each kind, four rows.
    (language + sum(weight * loss for weight, loss in terms) / 2 / 4).backward()
    assert len(terms) == 2 * len(LOSSES[family_of(kind)])
    expected = gradients(explicit)
    for name, gradient in gradients(attached).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


def test_without_a_scale_it_is_the_mean_of_the_batch(kind):
    found = []
    for scale in (None, 1 / 3):
        model = small_model(kind)
        if scale:
            model.set_auxiliary_scale(scale)
        language_loss(model, some_tokens()).backward()
        found.append(gradients(model))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_weight_of_zero_takes_the_loss_away(kind):
    """And the parameters that it alone teaches stand still."""
    weights = {f"{name}_weight": 0.0 for name in LOSSES[family_of(kind)]}
    model = small_model(kind, **weights)
    language_loss(model, some_tokens()).backward()
    only = {"mod own": "predictor", "dtf own": "threshold", "tdtf": "student"}.get(kind, "causal_router")
    found = {name: gradient.abs().max() for name, gradient in gradients(model).items() if only in name}
    assert found
    assert not any(found.values())


def parallelized(model, checkpointing, is_compiled):
    """As a stage has it on one device."""
    config = JobConfig()
    config.activation_checkpoint.mode = checkpointing
    config.activation_checkpoint.selective_ac_option = "op"
    config.compile.enable, config.compile.backend = is_compiled, "aot_eager"
    dims = ParallelDims(dp_replicate=1, dp_shard=1, cp=1, tp=1, pp=1, ep=1, etp=1, world_size=1)
    return parallelize_routed(model, dims, config)


@pytest.mark.parametrize(("checkpointing", "is_compiled"), [("full", False), ("selective", False), ("selective", True)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_recomputed_or_compiled_it_is_the_same(kind, checkpointing, is_compiled):
    torch._dynamo.reset()
    tokens, positions, found = some_tokens(), packed_positions(10, 14, rows=3), []
    plain, other = small_model(kind, n_layers=2), small_model(kind, n_layers=2)
    for model in (plain, parallelized(other, checkpointing, is_compiled)):
        model.begin_step(3, 10)
        loss = language_loss(model, tokens, positions)
        loss.backward()
        found.append((loss, gradients(model), dict(model.router_statistics())))
        found[-1] += (outputs(model.eval(), tokens, positions),)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_step_compiles_nothing_anew(kind):
    torch._dynamo.reset()
    model = parallelized(small_model(kind, n_layers=2), "none", True)
    model.set_auxiliary_scale(0.5)
    for step in range(1, 5):
        model.begin_step(step, 4)
        with contextlib.nullcontext() if step == 1 else torch.compiler.set_stance("fail_on_recompile"):
            language_loss(model, some_tokens(seed=step)).backward()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_under_autocast_scores_stay_in_single_precision(kind, mode):
    model = getattr(small_model(kind).float(), mode)()
    gates = []
    for layer in routed_layers(model):
        compute = layer.compute
        layer.compute = lambda x, gate, *rest, compute=compute: gates.append(gate) or compute(x, gate, *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(some_tokens()).dtype == torch.bfloat16
    assert [gate.dtype for gate in gates] == [torch.float32] * 2
    statistics = model.router_statistics()
    assert all(value.dtype == torch.float32 for value in statistics.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 0.0}, "capacity=0.0"),
        ({"capacity": 1.5}, "capacity=1.5"),
        ({"n_heads": 3}, "n_heads=3"),
        ({"causal_loss_weight": -0.01}, "causal_loss_weight=-0.01, expected 0 or above"),
    ],
)
def test_impossible_arguments_are_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        small_args(kind, **changes)


def test_another_attention_is_refused(kind):
    with pytest.raises(ValueError, match=r"model\.attn_type: found 'flex', and a routed layer's attention is sdpa"):
        small_model(kind, attn_type="flex")


def test_a_row_of_which_nothing_is_chosen_passes_by(kind):
    """With others of which much is, and alone."""
    model = centred(small_model(kind)).eval()
    for layer in routed_layers(model):
        if kind == "dtf own":
            layer.router.threshold.data.fill_(2)
        else:
            getattr(decider(layer), "score", decider(layer)).bias.data.fill_(-1e4)
    tokens = some_tokens()
    assert not any(marked.any() for marked in chosen_in(model, tokens).values())
    assert outputs(model, tokens).isfinite().all()


def test_adapters_go_beside_the_layers_that_are_routed_and_not_the_routers(kind):
    """The names of a prior's, transition's or predictor's parts are none that adapters mean by default."""
    model = small_model(kind)
    found = add_adapters(model, Lora(rank=2))
    linears = {*(f"attention.w{part}" for part in "qkvo"), *(f"feed_forward.w{part}" for part in "123")}
    assert {name.split(".", 2)[2] for name in found.targets} == linears
    assert len(found.targets) == 4 * len(linears)
    language_loss(model, some_tokens()).backward()
    trained = {name for name, gradient in gradients(model).items() if gradient is not None}
    assert trained == {name for name in gradients(model) if is_adapter(name)}
