"""What Qwen2.5 drops in training: the attention's weights and what each sublayer adds."""

import pytest
import torch
from tiny_exports import VOCAB, sensitised, tiny_args
from torch import nn
from torchtitan.config.job_config import ActivationCheckpoint
from torchtitan.distributed.activation_checkpoint import apply_ac
from torchtitan.models.llama3.infra.parallelize import _op_sac_save_list

from titan.models.documents import keep_documents_apart
from titan.models.registry import train_spec

TOKENS = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.cat([torch.arange(25), torch.arange(15)]).expand(2, -1)


def model_with(dropout, **changes):
    return sensitised("qwen2", tiny_args("qwen2", dropout=dropout, **changes))


class Ones(nn.Module):
    """A sublayer that adds 1."""

    def forward(self, x, *others):
        return torch.ones_like(x)


def test_both_sublayers_drop_what_they_add_and_keep_its_mean():
    block = model_with(0.25).layers["0"].train()
    block.attention = block.feed_forward = Ones()
    x = torch.zeros(8, 200, 64)
    added = block(x, None)
    # Each of the two is kept, scaled up by 1 / (1 - p), or dropped.
    assert added.unique().tolist() == pytest.approx([0, 1 / 0.75, 2 / 0.75])
    assert added.mean().item() == pytest.approx(2, rel=0.01)
    assert torch.equal(block.eval()(x, None), 2 * torch.ones_like(x))


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_that_is_evaluated_drops_nothing(packed):
    plain, dropping = model_with(0.0), model_with(0.5)
    given = {"positions": POSITIONS} if packed else {}
    for model in (plain, dropping) if packed else ():
        keep_documents_apart(model)
    with torch.inference_mode():
        assert torch.equal(dropping(TOKENS, **given), plain(TOKENS, **given))
        found = dropping.train()(TOKENS, **given)
        assert not torch.allclose(found, plain(TOKENS, **given), atol=0.1)


@pytest.mark.parametrize("kind", ["attention", "residual"])
def test_either_alone_changes_the_logits(kind):
    model = model_with(0.5).train()
    for layer in model.layers.values():
        if kind == "attention":
            layer.dropout.p = 0.0
        else:
            layer.attention.inner_attention.dropout.p = 0.0
    with torch.inference_mode():
        assert not torch.allclose(model(TOKENS), model(TOKENS), atol=0.1)


def test_documents_of_a_row_stay_apart_though_it_drops():
    model = model_with(0.5).train()
    keep_documents_apart(model)
    other = TOKENS.clone()
    other[:, :25] = (other[:, :25] + 1) % VOCAB
    outputs = []
    for tokens in (TOKENS, other):
        torch.manual_seed(5)
        outputs.append(model(tokens, positions=POSITIONS).detach())
    assert torch.equal(outputs[0][:, 25:], outputs[1][:, 25:])
    assert not torch.equal(outputs[0][:, :25], outputs[1][:, :25])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("mode", "option"), [("full", "op"), ("selective", "op"), ("selective", "2")])
def test_recomputed_activations_drop_the_same(mode, option, packed):
    gradients = []
    for recomputed in (False, True):
        model = model_with(0.3).train()
        if packed:
            keep_documents_apart(model)
        if recomputed:
            config = ActivationCheckpoint(mode=mode, selective_ac_option=option)
            apply_ac(model, config, model_compile_enabled=False, op_sac_save_list=_op_sac_save_list)
        torch.manual_seed(5)
        model(TOKENS, **({"positions": POSITIONS} if packed else {})).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["flex", "varlen"])
def test_a_kernel_that_drops_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=rf"model\.dropout: found 0\.1, and {kind} attention has none"):
        train_spec("qwen2").model_cls(tiny_args("qwen2", dropout=0.1, attn_type=kind))
