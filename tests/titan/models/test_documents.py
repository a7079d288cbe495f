"""Packed rows against the same documents in rows of their own; the numbers are those of the masking cases."""

import dataclasses

import numpy as np
import pytest
import torch
from packed_rows import (
    COMMON,
    FAMILIES,
    ROWS,
    SEQ_LEN,
    VOCAB,
    batch_of,
    build,
    document,
    packed_row,
    packing,
    summed_loss,
)
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torchtitan.config.job_config import ActivationCheckpoint
from torchtitan.distributed.activation_checkpoint import apply_ac
from torchtitan.models import attention
from torchtitan.models.llama3.infra.parallelize import _op_sac_save_list

from titan.models.documents import (
    DocumentAttention,
    DocumentMask,
    document_boundaries,
    document_mask,
    document_mask_mod,
)
from titan.models.registry import train_spec
from titanflow.data.prepared import IGNORE_INDEX

pytestmark = pytest.mark.slow

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def alone(document):
    return torch.from_numpy(document.input_ids)[None], torch.from_numpy(document.labels)[None]


def seen_by_loops(positions):
    rows, seq_len = positions.shape
    mask = torch.zeros(rows, 1, seq_len, seq_len, dtype=torch.bool)
    for row in range(rows):
        start = 0
        for query in range(seq_len):
            start = query if positions[row, query] == 0 else start
            mask[row, 0, query, start : query + 1] = True
    return mask


def test_the_masks_of_every_kind_of_attention_say_the_same():
    _, positions, _ = batch_of(ROWS)
    expected = seen_by_loops(positions)
    assert torch.equal(document_mask(positions), expected)
    flex = create_mask(document_mask_mod(positions), len(ROWS), None, SEQ_LEN, SEQ_LEN, device="cpu")
    assert torch.equal(flex, expected)
    boundaries = document_boundaries(positions)
    assert boundaries.cu_seq_q.tolist() == [0, 7, 19, 28, 32, 64, 65, 85, 96]
    assert boundaries.cu_seq_q.dtype == torch.int32
    assert (boundaries.max_q, boundaries.max_k) == (32, 32)


def test_flex_attention_with_the_mask_is_masked_attention():
    _, positions, _ = batch_of(ROWS)
    q, k, v = torch.randn(3, len(ROWS), 2, SEQ_LEN, 8)
    blocks = create_block_mask(document_mask_mod(positions), len(ROWS), None, SEQ_LEN, SEQ_LEN, device="cpu")
    expected = scaled_dot_product_attention(q, k, v, attn_mask=document_mask(positions))
    assert torch.allclose(flex_attention(q, k, v, block_mask=blocks), expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_case_25_packed_logits_are_those_of_each_document_alone(family):
    model = packing(build(family))
    inputs, positions, _ = batch_of(ROWS)
    with torch.no_grad():
        packed = model(inputs, positions=positions)
        for row, documents in enumerate(ROWS):
            start = 0
            for one in documents:
                end = start + len(one.input_ids)
                unpacked = model(alone(one)[0])[0]
                assert torch.allclose(packed[row, start:end], unpacked, rtol=0, atol=1e-5)
                start = end


def attend_each(q, k, v, starts_q, starts_k, longest_q, longest_k, scale=None, window_size=None):
    """What the varlen kernel computes, ``[tokens, heads, head_dim]``; like it, it wants as many keys' heads."""
    assert q.shape == k.shape
    assert (window_size, longest_q, longest_k) == ((-1, 0), 32, 32)
    parts = []
    for start, end in zip(starts_q.tolist(), starts_k.tolist()[1:], strict=False):
        one = (part[start:end].transpose(0, 1) for part in (q, k, v))
        parts.append(scaled_dot_product_attention(*one, is_causal=True, scale=scale).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def reference_kernels(monkeypatch):
    """The kernels are compiled for GPUs; here stand what they compute, on what they are given."""
    monkeypatch.setattr(attention.FlexAttentionWrapper, "_compiled_flex_attn", flex_attention)
    monkeypatch.setattr(attention.VarlenAttentionWrapper, "_compiled_varlen_attn", attend_each)
    monkeypatch.setattr(attention, "_compiled_create_block_mask", create_block_mask)


@pytest.mark.usefixtures("reference_kernels")
@pytest.mark.parametrize(
    ("family", "kind"),
    # torchtitan's deepseek_v3 has no varlen attention.
    [
        *((family, kind) for family in ("llama3", "qwen3", "qwen2") for kind in ("flex", "varlen")),
        ("deepseek_v3", "flex"),
    ],
)
def test_case_25_every_kind_of_attention_gives_the_same_logits(family, kind):
    inputs, positions, _ = batch_of(ROWS)
    masked, other = packing(build(family)), packing(build(family, attn_type=kind))
    with torch.no_grad():
        for arguments in ({"positions": positions}, {}):
            expected, found = masked(inputs, **arguments), other(inputs, **arguments)
            assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_case_25_packed_loss_and_gradients_are_those_of_the_documents_alone(family):
    packed, unpacked = packing(build(family)), build(family)
    inputs, positions, labels = batch_of(ROWS)
    loss = summed_loss(packed(inputs, positions=positions), labels)
    loss.backward()
    total = 0.0
    for one in [one for row in ROWS for one in row]:
        tokens, targets = alone(one)
        part = summed_loss(unpacked(tokens), targets)
        part.backward()
        total += part.item()
    tokens = int((labels != IGNORE_INDEX).sum())
    assert loss.item() / tokens == pytest.approx(total / tokens, abs=1e-5)
    for (name, mine), theirs in zip(packed.named_parameters(), unpacked.parameters(), strict=True):
        assert torch.allclose(mine.grad / tokens, theirs.grad / tokens, rtol=0, atol=1e-5), name


def test_case_26_positions_restart_and_padding_is_a_document_of_its_own():
    row = packed_row([document(3, 0), document(2, 1)], 8)
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert document_mask(torch.from_numpy(row.positions)[None])[0, 0, 5].nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("family", FAMILIES)
def test_case_27_a_document_changes_no_other(family):
    inputs, positions, _ = batch_of(ROWS[:1])
    changed = inputs.clone()
    changed[0, 7:19] = (changed[0, 7:19] + 1) % VOCAB
    is_other = torch.ones(SEQ_LEN, dtype=torch.bool)
    is_other[7:19] = False
    model = packing(build(family))
    with torch.no_grad():
        before, after = model(inputs, positions=positions)[0], model(changed, positions=positions)[0]
        assert torch.equal(before[is_other], after[is_other])
        assert not torch.equal(before[7:19], after[7:19])
        leaking = build(family)
        assert not torch.equal(leaking(inputs)[0, 19:], leaking(changed)[0, 19:])


def test_case_28_the_last_token_of_a_document_never_predicts_the_nexts_first():
    documents = [document(4, 0), document(5, 1), document(6, 2)]
    row = packed_row(documents, 20)
    starts = np.flatnonzero(row.positions == 0)
    assert starts.tolist() == [0, 4, 9, 15]
    for one, following in zip(documents, starts[1:], strict=True):
        assert row.labels[following - 1] == one.labels[-1]
        assert row.labels[following - 1] != row.input_ids[following]
    assert (row.labels[15:] == IGNORE_INDEX).all()


def test_case_28_nor_does_its_loss_move_with_it():
    model = packing(build("llama3"))
    inputs, positions, labels = batch_of(ROWS[:1])
    only_first = labels.clone()
    only_first[0, 7:] = IGNORE_INDEX
    embedding = model.tok_embeddings(inputs).detach().requires_grad_()
    model.tok_embeddings = torch.nn.Identity()
    summed_loss(model(embedding, positions=positions), only_first).backward()
    assert embedding.grad[0, :7].abs().sum() > 0
    assert embedding.grad[0, 7:].abs().sum() == 0


@pytest.mark.parametrize("family", ["llama3", "qwen3", "qwen2"])
def test_case_35_the_loss_does_not_depend_on_the_padding(family):
    model = packing(build(family))
    losses = []
    for seq_len in (28, 29, SEQ_LEN):
        inputs, positions, labels = batch_of(ROWS[:1], seq_len)
        losses.append(summed_loss(model(inputs, positions=positions), labels).item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


def test_case_35_nor_on_what_the_padding_is():
    model = packing(build("llama3"))
    inputs, positions, labels = batch_of(ROWS[:1])
    other = inputs.clone()
    other[0, 28:] = 17
    with torch.no_grad():
        losses = [summed_loss(model(one, positions=positions), labels).item() for one in (inputs, other)]
    assert losses[0] == losses[1]


def gradients(model, batches):
    for inputs, positions, labels in batches:
        summed_loss(model(inputs, positions=positions), labels).backward()
    return [parameter.grad for parameter in model.parameters()]


MICROBATCHES = [batch_of(ROWS[:2]), batch_of(ROWS[1:]), batch_of(ROWS[:1])]


@pytest.mark.parametrize(("mode", "option"), [("full", "op"), ("selective", "op"), ("selective", "2")])
def test_recomputed_activations_see_the_mask_of_their_own_batch(mode, option):
    config = ActivationCheckpoint(mode=mode, selective_ac_option=option)
    recomputing = packing(build("llama3"))
    apply_ac(recomputing, config, model_compile_enabled=False, op_sac_save_list=_op_sac_save_list)
    for mine, expected in zip(
        gradients(recomputing, MICROBATCHES), gradients(packing(build("llama3")), MICROBATCHES), strict=True
    ):
        assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "mode"), [("llama3", "none"), ("llama3", "full"), ("qwen2", "full")])
def test_compiled_blocks_see_the_mask_of_each_batch(family, mode):
    compiled = packing(build(family))
    if mode != "none":
        apply_ac(compiled, ActivationCheckpoint(mode=mode), model_compile_enabled=True)
    for name, block in compiled.layers.named_children():
        compiled.layers.register_module(name, torch.compile(block, backend="aot_eager", fullgraph=True))
    for mine, expected in zip(
        gradients(compiled, MICROBATCHES), gradients(packing(build(family)), MICROBATCHES), strict=True
    ):
        assert torch.allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_not_packed_are_attended_to_as_before(family):
    inputs, positions, _ = batch_of(ROWS)
    plain, packed = build(family), packing(build(family))
    with torch.no_grad():
        packed(inputs, positions=positions)
        assert torch.equal(packed(inputs), plain(inputs))
    assert list(packed.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_dtype_scale_and_grouped_queries_are_kept(dtype, scale):
    _, positions, _ = batch_of(ROWS)
    documents = DocumentMask()
    documents.mask = document_mask(positions)
    q = torch.randn(3, 4, SEQ_LEN, 8, dtype=dtype)
    k, v = torch.randn(2, 3, 2, SEQ_LEN, 8, dtype=dtype)
    output = DocumentAttention(documents)(q, k, v, scale=scale, enable_gqa=True)
    factor = 8**-0.5 if scale is None else scale
    k, v = (one.double().repeat_interleave(2, dim=1) for one in (k, v))
    scores = (q.double() @ k.mT * factor).masked_fill(~documents.mask, -torch.inf)
    assert output.dtype == dtype
    assert torch.allclose(output.double(), scores.softmax(-1) @ v, atol=2e-2 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kind", ["varlen", "flex"])
def test_case_25_on_a_gpu_every_kind_of_attention_gives_the_masked_logits_and_gradients(kind):
    # Flash attention wants a head_dim of at least 16, FlexAttention rows of whole blocks of 128.
    shape = {"dim": 256, "n_heads": 4, "max_seq_len": 256}
    rows = [[document(100, 0), document(90, 1)], [document(256, 2)]]
    inputs, positions, labels = (one.cuda() for one in batch_of(rows, 256))
    logits, slopes = {}, {}
    for attn_type in ("sdpa", kind):
        spec = train_spec("llama3")
        arguments = COMMON | FAMILIES["llama3"] | shape
        args = dataclasses.replace(spec.model_args["debugmodel"], **arguments, attn_type=attn_type)
        torch.manual_seed(3)
        model = spec.model_cls(args)
        with torch.no_grad():
            model.init_weights(buffer_device=torch.device("cpu"))
        model = packing(model.cuda())
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = model(inputs, positions=positions)
        summed_loss(output.float(), labels).backward()
        is_trained = labels != IGNORE_INDEX
        logits[attn_type] = output.float()[is_trained]
        slopes[attn_type] = model.layers["0"].attention.wq.weight.grad
    assert torch.allclose(logits[kind], logits["sdpa"], atol=5e-2, rtol=5e-2)
    difference = (slopes[kind] - slopes["sdpa"]).norm() / slopes["sdpa"].norm()
    assert difference < 5e-2
