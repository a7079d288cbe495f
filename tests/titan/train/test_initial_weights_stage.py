"""A pretraining that begins with weights in transformers' format, on random tokens, as a process."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_hugging_face import write_hugging_face
from tiny_stages import SEQ_LEN

from titanflow.architectures.huggingface import hugging_face
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow


def test_a_stage_begins_with_weights_that_transformers_saved(bench, tmp_path):
    """Nothing is learnt at a rate of 0: what is exported is what was given."""
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "0123abc"
    write_hugging_face(snapshot, "Qwen3ForCausalLM")
    settings = {
        "model": {"name": "qwen3", "flavor": "debugmodel", "hf_assets_path": None},
        "training": {"steps": 1, "mock_data": True, "seq_len": SEQ_LEN},
        "optimizer": {"lr": 0.0},
        "lr_scheduler": {"warmup_steps": 0},
        "checkpoint": {"initial_load_in_hf": True, "initial_load_path": str(snapshot)},
    }
    overrides = {key: value for key, value in hugging_face(snapshot).model_args.items() if key != "moe_args"}
    fields = {"model_overrides": overrides, "data": PreparedData()}
    begun = bench.stage("begun", settings, tokenizer=snapshot, **fields)
    assert bench.run(begun) == 0, (begun.folder / "log.txt").read_text()
    result = read_result(begun.folder)
    assert result.base_model == "owner/model"
    given, exported = (load_file(folder / "model.safetensors") for folder in (snapshot, result.export))
    assert given.keys() - {"lm_head.weight"} <= exported.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor.float(), given[name].float(), rtol=0, atol=0)
    # Another goes on from the finished stage, by its folder.
    named = {"checkpoint": {"initial_load_in_hf": False, "initial_load_path": str(begun.folder)}}
    further = bench.stage("further", settings, named, tokenizer=snapshot, **fields)
    assert bench.run(further) == 0, (further.folder / "log.txt").read_text()
    again = load_file(read_result(further.folder).export / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in exported.items())
    bare = bench.stage("bare", settings, **fields)
    assert bench.run(bare) == 0, (bare.folder / "log.txt").read_text()
    assert read_result(bare.folder).export is None
    assert "no export: there is no tokenizer" in (bare.folder / "log.txt").read_text()
    assert json.loads((bare.folder / "result.json").read_text())["loss"] == pytest.approx(result.loss)
