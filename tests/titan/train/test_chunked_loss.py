"""The chunked loss of every family has the value and the gradients of the whole one, and never its logits."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from packed_rows import build
from routed_models import FAMILIES, small_model
from torch.utils._python_dispatch import TorchDispatchMode
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.config import JobConfig
from torchtitan.protocols.model_converter import build_model_converters

from titan.models.lora import add_adapters, init_adapters
from titan.train.chunked_loss import CHUNKED_LOSS, CHUNKED_TOKEN_LOSSES, chunk_head, summed, token_losses, with_labels
from titanflow.common.errors import ConfigError
from titanflow.config.keys.training import Lora

ROWS, TOKENS = 3, 7
DENSE = ("llama3", "qwen3", "qwen2", "deepseek_v3")
SCALE = 1 / 13
"""What torchtitan multiplies the summed loss by."""


def model_of(family, **changes):
    torch.manual_seed(1)
    model = (small_model(family) if family in FAMILIES else build(family, **changes)).float()
    for block in getattr(model, "auxiliary_blocks", tuple)():
        block.auxiliary_scale = 0.1
    return model


def batch(model):
    """Rows of which some tokens aren't trained, among them all of the first part's."""
    size = model.model_args.vocab_size
    tokens = torch.randint(0, size, (ROWS, TOKENS), generator=torch.Generator().manual_seed(2))
    labels = tokens.roll(-1, 1)
    labels[0] = -100
    labels[1, ::2] = -100
    return tokens, labels


def learned(model, loss_of):
    """The loss, and the gradient of each parameter that has one."""
    loss = loss_of(*batch(model)) * SCALE
    loss.backward()
    return loss.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def whole(model):
    return lambda tokens, labels: cross_entropy_loss(model(tokens), labels)


def chunked(model, chunks, sum_loss=cross_entropy_loss):
    chunk_head(model, chunks, sum_loss)
    return lambda tokens, labels: summed(model(tokens, labels=labels), labels)


def check_equal(found, expected):
    """The loss and the whole gradient are the same to 1e-6, and none of its parts is far off."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert found[1].keys() == expected[1].keys()
    apart = {name: (found[1][name] - gradient).norm() for name, gradient in expected[1].items()}
    sizes = {name: gradient.norm() for name, gradient in expected[1].items()}
    assert torch.stack([*apart.values()]).norm() <= 1e-6 * torch.stack([*sizes.values()]).norm()
    # The gradient of a bias of keys is nothing but rounding.
    assert all(apart[name] <= 1e-5 * size + 1e-7 * max(sizes.values()) for name, size in sizes.items())


@pytest.mark.parametrize("sum_loss", [cross_entropy_loss, None], ids=["summed", "of each token"])
@pytest.mark.parametrize("family", [*DENSE, *FAMILIES])
def test_value_and_gradients_of_each_family_are_those_of_the_whole_loss(family, sum_loss):
    expected = learned(plain := model_of(family), whole(plain))
    found = learned(model := model_of(family), chunked(model, 4, sum_loss))
    check_equal(found, expected)


@pytest.mark.parametrize("chunks", [2, 3, ROWS * TOKENS, 1000])
def test_any_number_of_parts_has_the_same_loss(chunks):
    expected = learned(plain := model_of("llama3"), whole(plain))
    found = learned(model := model_of("llama3"), chunked(model, chunks))
    check_equal(found, expected)


def test_a_tied_weight_gets_the_gradients_of_both_its_places():
    expected = learned(plain := model_of("qwen3", enable_weight_tying=True), whole(plain))
    found = learned(model := model_of("qwen3", enable_weight_tying=True), chunked(model, 4))
    assert "output.weight" not in expected[1]
    check_equal(found, expected)


@pytest.mark.parametrize("sum_loss", [cross_entropy_loss, None], ids=["summed", "of each token"])
def test_an_adapter_of_the_head_learns_as_it_does_without(sum_loss):
    def adapted():
        model = model_of("llama3")
        add_adapters(model, Lora(rank=2, target_modules=["output", "wq"]))
        init_adapters(model)
        torch.nn.init.normal_(model.output.lora_b)
        return model

    torch.manual_seed(3)
    expected = learned(plain := adapted(), whole(plain))
    torch.manual_seed(3)
    found = learned(model := adapted(), chunked(model, 4, sum_loss))
    assert {"output.lora_a", "output.lora_b"} <= expected[1].keys()
    check_equal(found, expected)


class Head(torch.nn.Sequential):
    """A model that is nothing but an output head."""

    def __init__(self, dim, vocabulary):
        super().__init__()
        torch.manual_seed(4)
        self.output = torch.nn.Linear(dim, vocabulary, bias=False)


def test_gradients_of_parts_are_added_up_in_float32():
    """In bfloat16 the sum over many parts would lose what each adds; the whole loss rounds once."""
    hidden = torch.randn(4, 256, 16, generator=torch.Generator().manual_seed(5)).bfloat16()
    labels = torch.randint(0, 32, (4, 256), generator=torch.Generator().manual_seed(6))
    found = []
    for dtype, chunks in ((torch.float64, 1), (torch.bfloat16, 1), (torch.bfloat16, 1024)):
        model = Head(16, 32).to(torch.bfloat16).to(dtype)
        chunked(model, chunks)(hidden.to(dtype), labels).backward()
        found.append(model.output.weight.grad.double())
    exact, once, parts = found
    assert (parts - exact).norm() < 1.2 * (once - exact).norm()


def test_without_gradients_the_loss_is_the_same_and_without_labels_there_are_logits():
    model = model_of("llama3")
    tokens, labels = batch(model)
    with torch.no_grad():
        logits = model(tokens)
        loss = cross_entropy_loss(logits, labels)
        found = chunked(model, 4)(tokens, labels)
        assert torch.equal(model(tokens), logits)
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=0)


def test_each_tokens_loss_is_there_for_a_loss_of_its_own():
    model = model_of("llama3")
    tokens, labels = batch(model)
    expected = token_losses(model(tokens), labels)
    chunk_head(model, 4, None)
    torch.testing.assert_close(model(tokens, labels=labels), expected, rtol=1e-5, atol=1e-6)
    assert expected[0].eq(0).all()


def test_a_second_backward_pass_is_refused_for_the_gradients_are_used_up():
    model = model_of("llama3")
    loss = chunked(model, 2)(*batch(model))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made within it held at once, and the largest of them."""

    def __init__(self):
        super().__init__()
        self.now = self.most = self.largest = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor) and (storage := one.untyped_storage())._cdata not in self.seen:
                self.add(storage)
        return result

    def add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        self.seen.add(key)
        self.now += size
        self.most, self.largest = max(self.most, self.now), max(self.largest, size)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("sum_loss", [cross_entropy_loss, None], ids=["summed", "of each token"])
def test_the_logits_are_never_whole_and_the_peak_is_lower(sum_loss):
    rows, tokens, dim, vocabulary, chunks = 4, 64, 16, 4096, 8
    logits = rows * tokens * vocabulary * 4
    labels = torch.randint(0, vocabulary, (rows, tokens))

    def peak(chunks, sum_loss):
        model = Head(dim, vocabulary)
        hidden = torch.randn(rows, tokens, dim, requires_grad=True)
        if chunks > 1:
            chunk_head(model, chunks, sum_loss)
        with LiveBytes() as live:
            if chunks > 1:
                loss = summed(model(hidden, labels=labels), labels)
            else:
                loss = cross_entropy_loss(model(hidden), labels)
            loss.backward()
        return live

    before, after = peak(1, None), peak(chunks, sum_loss)
    assert before.largest >= logits
    assert after.largest <= logits / chunks
    assert after.most < 2 * before.most / chunks


def test_it_is_a_model_converter_of_torchtitan():
    config, dims = JobConfig(), SimpleNamespace()
    for name, sums in ((CHUNKED_LOSS, True), (CHUNKED_TOKEN_LOSSES, False)):
        config.model.converters, config.training.loss_chunks = [name], 3
        model = model_of("llama3")
        build_model_converters(config, dims).convert(model)
        assert isinstance(model.output, torch.nn.Linear)
        assert (model.output.chunks, model.output.sum_loss is not None) == (3, sums)


def test_a_model_without_a_linear_head_is_refused():
    with pytest.raises(ConfigError, match=r"training\.loss_chunks: found 4, and Sequential has no linear layer"):
        chunk_head(torch.nn.Sequential(), 4, cross_entropy_loss)


def test_a_part_of_a_pipeline_without_the_head_gets_no_labels():
    model = model_of("llama3")
    chunk_head(model, 2, cross_entropy_loss)
    tokens, labels = batch(model)
    model.output = None
    assert model(tokens, labels=labels).shape == (ROWS, TOKENS, model.model_args.dim)


def test_labels_reach_the_model_where_its_head_wants_them():
    labels, model = torch.zeros(1, 2), model_of("llama3")
    plain = (labels, labels, {}, {"attention_masks": None})
    assert with_labels(plain, model) == plain
    chunk_head(model, 2, cross_entropy_loss)
    assert with_labels(plain, model)[3] == {"attention_masks": None, "labels": labels}
