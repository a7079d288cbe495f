"""The FLOPs that a family says of itself, against those that torch counts in a forward and a backward pass."""

import pytest
import torch
from tiny_exports import VOCAB, tiny_args
from torch.nn.attention import SDPBackend
from torch.utils.flop_counter import FlopCounterMode

from titan.models.attention import MaskedAttention
from titan.models.flops import FORWARD_AND_BACKWARD, attention_flops, dense_parameters_and_flops
from titan.models.registry import train_spec

SEQ_LEN = 48
ROWS = 2


def counted(model) -> int:
    """Per token. The math kernel is the one whose products torch sees on a CPU; it computes what causality hides,
    too, and that's the convention: PaLM's, torchtitan's and flop_counter's own."""
    for module in model.modules():
        if isinstance(module, MaskedAttention):
            module.sdpa_backends = [SDPBackend.MATH]
    with FlopCounterMode(display=False) as counter:
        model(torch.randint(VOCAB, (ROWS, SEQ_LEN))).sum().backward()
    return counter.get_total_flops() // (ROWS * SEQ_LEN)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 4}, {"n_layers": 1, "hidden_dim": 160}])
def test_a_dense_model_is_counted_as_torch_counts_it(tied, changes):
    args = tiny_args("qwen2", enable_weight_tying=tied, **changes)
    model = train_spec("qwen2").model_cls(args)
    parameters, flops = args.get_nparams_and_flops(model, SEQ_LEN)
    # Norms and biases are among the parameters, and no matrix products.
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)
    assert flops - FORWARD_AND_BACKWARD * vectors == counted(model)
    assert parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("family", "share"), [("mod", 0.125), ("mod", 1.0), ("dtf", 0.5), ("tdtf", 0.5)])
def test_a_routed_model_does_what_its_equations_promise(family, share):
    """Within a tenth: norms are no products, and a predictor's gradient goes no further than its weights."""
    args = tiny_args(family, capacity=share, dim=128, n_heads=4, hidden_dim=352)
    model = train_spec(family).model_cls(args).train()
    with torch.no_grad():
        model.init_weights()
    assert counted(model) == pytest.approx(args.get_nparams_and_flops(model, SEQ_LEN)[1], rel=0.1)


def test_every_other_layer_at_an_eighth_saves_seven_sixteenths_of_all_layers():
    dense, routed = tiny_args("qwen2", n_layers=4), tiny_args("mod", capacity=0.125)
    head = FORWARD_AND_BACKWARD * VOCAB * 64

    def layers(args, family):
        model = train_spec(family).model_cls(args).train()
        with torch.no_grad():
            model.init_weights()
        return counted(model) - head

    assert layers(routed, "mod") / layers(dense, "qwen2") == pytest.approx(9 / 16, rel=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_on_the_meta_device_they_are_the_same(tied):
    args = tiny_args("qwen2", enable_weight_tying=tied)
    model = train_spec("qwen2").model_cls(args)
    with torch.device("meta"):
        built = train_spec("qwen2").model_cls(args)
    # Materialised, a tied weight is two until the weights are drawn.
    apart = train_spec("qwen2").model_cls(args)
    apart.output.weight = torch.nn.Parameter(apart.output.weight.detach().clone())
    expected = dense_parameters_and_flops(args, model, SEQ_LEN)
    assert dense_parameters_and_flops(args, built, SEQ_LEN) == expected
    assert dense_parameters_and_flops(args, apart, SEQ_LEN) == expected


def test_attention_grows_with_the_keys_alone():
    args = tiny_args("qwen2")
    assert attention_flops(args, 256) == 6 * 2 * args.dim * 256
    assert attention_flops(args, 0.5) == 6 * args.dim


def test_torchtitans_count_is_the_same():
    """Its own is right for an untied model: figures of its families and of these may be compared."""
    from torchtitan.models.utils import get_dense_model_nparams_and_flops

    args = tiny_args("qwen2")
    model = train_spec("qwen2").model_cls(args)
    theirs = get_dense_model_nparams_and_flops(args, model, 2 * args.head_dim, SEQ_LEN)
    assert dense_parameters_and_flops(args, model, SEQ_LEN) == theirs
