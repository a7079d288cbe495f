import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from titan.models.attention import MaskedAttention, repeat_heads

ROWS, HEADS, KV_HEADS, SEQ_LEN, WIDTH = 2, 4, 2, 12, 8


def queries_keys_values(seed=0):
    torch.manual_seed(seed)
    return [torch.randn(ROWS, heads, SEQ_LEN, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def expected(q, k, v, mask=None):
    mask = torch.ones(SEQ_LEN, SEQ_LEN, dtype=torch.bool).tril() if mask is None else mask
    k, v = (one.repeat_interleave(HEADS // KV_HEADS, dim=1) for one in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def test_each_group_of_query_heads_shares_a_key_head():
    keys = torch.arange(KV_HEADS).view(1, -1, 1, 1).float()
    assert repeat_heads(keys, HEADS).flatten().tolist() == [0, 0, 1, 1]
    assert repeat_heads(keys, KV_HEADS) is keys


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_without_training_nothing_is_dropped(dropout):
    q, k, v = queries_keys_values()
    attention = MaskedAttention(dropout).eval()
    torch.testing.assert_close(attention(q, k, v, enable_gqa=True), expected(q, k, v))
    mask = torch.eye(SEQ_LEN, dtype=torch.bool) | (torch.rand(ROWS, 1, SEQ_LEN, SEQ_LEN) < 0.4)
    torch.testing.assert_close(attention(q, k, v, enable_gqa=True, mask=mask), expected(q, k, v, mask))


@pytest.mark.parametrize("masked", [False, True])
def test_dropout_keeps_the_mean_and_the_mask(masked):
    q, k, v = queries_keys_values()
    mask = torch.eye(SEQ_LEN, dtype=torch.bool) | (torch.rand(SEQ_LEN, SEQ_LEN) < 0.4) if masked else None
    attention, draws = MaskedAttention(0.4), 400
    kept = torch.stack([attention(q, k, v, enable_gqa=True, mask=mask) for _ in range(draws)])
    wanted = expected(q, k, v, mask)
    error = kept.std(0) / draws**0.5
    assert ((kept.mean(0) - wanted).abs() <= 5 * error + 1e-6).all()
    assert (kept[0] - kept[1]).abs().max() > 0.1, "each draw is another"
    # The first query of a causal row sees one key, whose value is kept and scaled up, or dropped.
    if not masked:
        ratio = (kept[:, 0, 0, 0] / v[0, 0, 0]).round(decimals=4)
        assert sorted(set(ratio.flatten().tolist())) == pytest.approx([0, 1 / 0.6], abs=1e-3)
        assert (ratio[:, 0] == 0).double().mean().item() == pytest.approx(0.4, abs=0.1)


def test_it_has_no_parameters():
    assert dict(MaskedAttention(0.1).state_dict()) == {}
