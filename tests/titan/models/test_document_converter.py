"""Which models may read packed rows, and how they come to keep the documents of a row apart."""

from types import SimpleNamespace

import pytest
import torch
from packed_rows import ROWS, batch_of, build, packing
from torchtitan.config import JobConfig
from torchtitan.protocols.model_converter import build_model_converters

from titan.models.documents import DOCUMENT_ATTENTION, DocumentAttention, document_inputs, keep_documents_apart
from titanflow.common.errors import ConfigError


def convert(model, family, **degrees):
    config = JobConfig()
    config.model.name = family
    config.model.converters = [DOCUMENT_ATTENTION]
    dims = SimpleNamespace(**{"cp": 1, "pp": 1, "tp_enabled": False} | degrees)
    build_model_converters(config, dims).convert(model)


def test_the_converter_is_torchtitans_own_kind():
    model = build("qwen3")
    convert(model, "qwen3")
    assert {type(layer.attention.inner_attention) for layer in model.layers.values()} == {DocumentAttention}


@pytest.mark.parametrize(
    ("family", "degrees", "expected"),
    [
        ("llama4", {}, "model.name: the rows are packed: llama4 can't keep the documents of a row apart: its layers"),
        ("gpt_oss", {}, "model.name: the rows are packed: gpt_oss can't"),
        ("llama3", {"cp": 2}, "parallelism.context_parallel_degree: the rows are packed: the ranks cut each row"),
        ("llama3", {"pp": 2}, "parallelism.pipeline_parallel_degree: the rows are packed: torchtitan gives"),
    ],
)
def test_what_would_let_documents_see_each_other_is_refused(family, degrees, expected):
    with pytest.raises(ConfigError, match=expected):
        convert(None, family, **degrees)


def test_a_model_of_another_kind_is_refused():
    for model in (build("llama3", attn_type="sdpa"), torch.nn.Linear(2, 2)):
        model.model_args = SimpleNamespace(attn_type="ring")
        with pytest.raises(ConfigError, match=r"can't keep their documents apart: .* with attn_type 'ring'"):
            keep_documents_apart(model)
    model.model_args = SimpleNamespace(attn_type="sdpa")
    with pytest.raises(ConfigError, match="Linear with attn_type 'sdpa' and 0 of torchtitan's attention modules"):
        keep_documents_apart(model)


def test_packed_rows_never_reach_a_model_that_would_mix_them():
    inputs, positions, labels = batch_of(ROWS)
    batch = {"input": inputs, "positions": positions}
    with pytest.raises(ConfigError, match=r"model\.converters: the rows are packed"):
        document_inputs(build("llama3"), batch, labels)
    assert document_inputs(build("llama3"), {"input": inputs}, labels) is None
    model = packing(build("llama3"))
    assert document_inputs(model, batch, labels) == (inputs, labels, {"positions": positions}, {})
    assert document_inputs(model, {"input": inputs}, labels) == (inputs, labels, {}, {})
