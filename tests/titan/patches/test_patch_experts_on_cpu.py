import pytest
import torch
from torchtitan.models.moe import kernels, moe

from titan.patches.experts_on_cpu import PATCH, CountingTorch
from titan.patches.patch import PatchContext


@pytest.fixture
def patched(monkeypatch):
    """torchtitan's modules as imported, patched for one test."""
    upstream = moe.torch._upstream if isinstance(moe.torch, CountingTorch) else moe.torch
    monkeypatch.setattr(moe, "torch", upstream)
    for owner, name in ((moe.GroupedExperts, "forward"), (kernels, "fill_indices_wrapper")):
        found = getattr(owner, name)
        monkeypatch.setattr(owner, name, getattr(found, "__wrapped__", found))
    PATCH.apply(PatchContext())


def mixture(use_grouped_mm=True):
    args = moe.MoEArgs(num_experts=4, num_shared_experts=0, top_k=2, use_grouped_mm=use_grouped_mm)
    layer = moe.MoE(args, dim=8, hidden_dim=16)
    torch.manual_seed(0)
    with torch.no_grad():
        layer.init_weights(init_std=0.5, buffer_device=torch.device("cpu"))
    return layer


def test_torch_still_has_no_histogram_of_whole_numbers_on_a_cpu():
    assert PATCH.needed()


def test_experts_are_counted_as_a_histogram_counts(patched):
    chosen = torch.tensor([3, 0, 3, 1])
    assert moe.torch.histc(chosen, bins=5, min=0, max=5).tolist() == [1, 1, 0, 2, 0]
    assert moe.torch.histc(chosen, bins=5, min=0, max=5).dtype == torch.int64
    assert torch.equal(
        moe.torch.histc(chosen.float(), bins=2, min=0, max=4), torch.histc(chosen.float(), bins=2, min=0, max=4)
    )
    assert moe.torch.argsort is torch.argsort


def test_a_mixture_is_the_weighted_sum_of_its_tokens_experts_and_counts_them(patched):
    layer, x = mixture(), torch.randn(2, 5, 8)
    scores, chosen, _ = layer.router(x.view(-1, 8), layer.expert_bias)
    w1, w2, w3 = layer.experts.w1, layer.experts.w2, layer.experts.w3

    found = layer(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), layer.experts.w1)

    expected = torch.zeros(10, 8)
    for token in range(10):
        for score, expert in zip(scores[token], chosen[token], strict=True):
            scored = x.view(-1, 8)[token] * score
            hidden = torch.nn.functional.silu(w1[expert] @ scored) * (w3[expert] @ scored)
            expected[token] += w2[expert] @ hidden
    assert torch.allclose(found.view(-1, 8), expected, atol=1e-6)
    assert layer.tokens_per_expert.tolist() == torch.bincount(chosen.flatten(), minlength=4).tolist()
    assert gradient.abs().amax(dim=(1, 2)).gt(0).tolist() == layer.tokens_per_expert.gt(0).tolist()


def test_a_cpu_takes_the_loop_whatever_the_arguments_ask_for(patched):
    x = torch.randn(1, 6, 8)
    assert torch.equal(mixture(use_grouped_mm=True)(x), mixture(use_grouped_mm=False)(x))


def test_tokens_of_two_ranks_are_put_in_the_order_of_this_ranks_experts(patched):
    # Expert 0 had 2 tokens of the first rank and 1 of the second, expert 1 had 1 and 3; each padded to a multiple of 4.
    counts = torch.tensor([2, 1, 1, 3])

    indices, sizes, _ = kernels.generate_permute_indices(counts, 2, 2, max_len=8, alignment=4)

    assert sizes.tolist() == [4, 4]
    assert indices.tolist() == [0, 1, 3, -1, 2, 4, 5, 6]


def test_twice_is_once(patched):
    before = moe.torch, moe.GroupedExperts.forward, kernels.fill_indices_wrapper
    PATCH.apply(PatchContext())
    assert before == (moe.torch, moe.GroupedExperts.forward, kernels.fill_indices_wrapper)
