"""Adapters beside embeddings and head that are one weight, which is trained whole: torchtitan's family and this
project's, on one process and on two."""

import pytest
import torch
from peft import PeftModel
from tiny_hugging_face import write_hugging_face
from tiny_stages import SEQ_LEN, records
from transformers import AutoModelForCausalLM

from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

TOKENS = torch.arange(SEQ_LEN)[None] * 3
LORA = {"rank": 2, "alpha": 8.0, "modules_to_save": ["tok_embeddings", "output"], "peft_adapter": True}
SETTINGS = {
    "lora": LORA,
    "training": {"steps": 4, "local_batch_size": 4},
    "optimizer": {"lr": 1e-2},
    "lr_scheduler": {"warmup_steps": 0},
    "checkpoint": {"interval": 2, "last_save_model_only": False},
}


def log_of(run):
    return (run.folder / "log.txt").read_text()


def logits(model):
    with torch.inference_mode():
        return model.eval()(TOKENS).logits


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_the_one_weight_is_trained_saved_resumed_merged_and_loaded_by_peft(bench, tmp_path, family):
    base = tmp_path / "base"
    write_hugging_face(base, f"{family.title()}ForCausalLM", tie_word_embeddings=True)
    fields = {"stage": "sft", "base": base, "tokenizer": base, "model_overrides": {}}
    fields["data"] = PreparedData(train=bench.data / "chats")
    model = {"model": {"name": family, "flavor": "debugmodel"}}
    one = bench.stage("one", SETTINGS, model, **fields)
    assert bench.run(one) == 0, log_of(one)
    result = read_result(one.folder)
    assert "; whole: tok_embeddings, output" in log_of(one)
    merged = AutoModelForCausalLM.from_pretrained(result.export, dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert (merged.lm_head.weight - loaded.lm_head.weight).abs().max() > 1e-3
    expected = logits(merged)
    assert (logits(loaded) - expected).abs().max() > 1e-2
    adapted = logits(PeftModel.from_pretrained(loaded, result.adapter))
    torch.testing.assert_close(adapted, expected, rtol=1e-5, atol=1e-5)

    halted = bench.stage("halted", SETTINGS, model, {"training": {"steps": 2}}, **fields)
    assert bench.run(halted) == 0, log_of(halted)
    (halted.folder / "result.json").unlink()
    halted.config["training"]["steps"] = 4
    halted.write()
    assert bench.run(halted) == 0, log_of(halted)
    assert "Training starts at step 3" in log_of(halted)
    assert records(halted) == records(one)

    two = bench.stage("two", SETTINGS, model, {"training": {"local_batch_size": 2}}, **fields)
    assert bench.run(two, ranks=2) == 0, log_of(two)
    assert records(two) == pytest.approx(records(one), abs=1e-5)

    above = bench.stage(
        "above", {"training": {"steps": 1}, "optimizer": {"lr": 0.0}}, model, **(fields | {"base": one.folder})
    )
    assert bench.run(above) == 0, log_of(above)
    again = AutoModelForCausalLM.from_pretrained(read_result(above.folder).export, dtype=torch.float32)
    torch.testing.assert_close(logits(again), expected, rtol=1e-5, atol=1e-5)
