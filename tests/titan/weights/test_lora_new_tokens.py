"""Adapters on a base whose tokenizer lacked tokens: the new rows are trained, saved and loaded, here and by peft."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from tiny_adapters import finished_base, finished_lora
from tiny_exports import model_at, tiny_args, write_byte_tokenizer
from tiny_hugging_face import write_hugging_face
from transformers import AutoModelForCausalLM

from titan.export.export import export_checkpoint
from titan.export.parity import TOLERANCE
from titan.export.peft_adapter import write_peft_adapter
from titan.models.lora import merged_state
from titan.models.registry import train_spec
from titan.weights.adapters import load_weights
from titan.weights.native import load_native
from titan.weights.stage_model import named_weights, read_model
from titanflow.data.tokenizer.tokenizer import add_special_tokens
from titanflow.runs.results import read_result

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:torch.distributed is")]

OLD, NEW = 260, 262
TOKENS = ["<|tool_call|>", "<|tool_end|>"]
HEADS = ["tok_embeddings", "output"]
WITH_PEFT = """
import sys, torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import save_file
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.inference_mode():
    save_file({"logits": model(torch.arange(262)[None]).logits}, sys.argv[2])
assert not {"titan", "titanflow"} & set(sys.modules)
"""


def extended(folder: Path) -> Path:
    write_byte_tokenizer(folder)
    add_special_tokens(folder, TOKENS)
    return folder


def with_peft_alone(adapter: Path, out: Path) -> torch.Tensor:
    """The logits that peft computes in a process without this package."""
    command = [sys.executable, "-P", "-c", WITH_PEFT, adapter, out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return load_file(out)["logits"]


def logits(loader: Any, folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return loader.from_pretrained(folder, dtype=torch.float32).eval()(torch.arange(NEW)[None]).logits


@pytest.mark.parametrize("in_hf", [False, True], ids=["own", "hugging face"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama3", {}), ("qwen3", {}), ("qwen2", {"enable_weight_tying": True})],
    ids=["llama3", "qwen3", "qwen2, tied"],
)
def test_more_rows_than_the_bases_are_the_adapters(
    tmp_path: Path, family: str, changes: dict[str, Any], in_hf: bool
) -> None:
    """Trained on a base, by peft on its export, and as the base of another stage."""
    old, new = (tiny_args(family, **changes) for _ in range(2))
    old.vocab_size, new.vocab_size = OLD, NEW
    base = finished_base(tmp_path / "base", family, old, tokenizer=write_byte_tokenizer(tmp_path / "bytes"))
    export_checkpoint(base, base / "export")
    on = base / "export" if in_hf else base
    lora = {"rank": 2, "modules_to_save": HEADS}
    stage = finished_lora(tmp_path / "sft", on, family, new, lora, tokenizer=extended(tmp_path / "tokenizer"))
    above = finished_lora(tmp_path / "above", stage, family, new, {"rank": 2, "target_modules": ["wq"]})

    export = export_checkpoint(stage, stage / "export").folder
    expected = logits(AutoModelForCausalLM, export)
    found = logits(AutoPeftModelForCausalLM, write_peft_adapter(read_model(stage), stage / "adapter"))
    assert found.shape[-1] == NEW
    assert (found - expected).abs().max() / expected.abs().max() < TOLERANCE

    spec = train_spec(family)
    states = []
    for folder in (stage, above):
        step = folder / "checkpoint" / "step-4"
        model = spec.model_cls(new)
        load_weights([model], named_weights(step), spec.state_dict_adapter(new, None))
        states.append(model.state_dict())
        native = merged_state(load_native(model_at(step, family, new)))
        assert all(torch.equal(states[-1][key], native[key]) for key in native)
    assert torch.equal(states[0]["tok_embeddings.weight"], states[1]["tok_embeddings.weight"])


def test_a_stage_with_adapters_may_be_what_grows(tmp_path: Path) -> None:
    """Its checkpoint holds no embeddings; they lie in the base's."""
    old, new = (tiny_args("llama3") for _ in range(2))
    old.vocab_size, new.vocab_size = OLD, NEW
    base = finished_base(tmp_path / "base", "llama3", old)
    stage = finished_lora(tmp_path / "first", base, "llama3", old, {"rank": 2, "target_modules": ["wq", "output"]})
    step = stage / "checkpoint" / "step-4"
    model = train_spec("llama3").model_cls(new)
    load_weights([model], named_weights(step), None, grows=True)
    below = merged_state(load_native(model_at(step, "llama3", old)))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value[: len(below[key])], below[key])
    torch.testing.assert_close(model.output.weight[OLD:], below["output.weight"].mean(0).expand(2, -1))


def test_a_stage_trains_the_rows_and_peft_loads_them(bench, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_hugging_face(base, "LlamaForCausalLM", vocab_size=OLD)
    write_byte_tokenizer(tmp_path / "bytes")
    for path in (tmp_path / "bytes").iterdir():
        path.rename(base / path.name)
    run = bench.stage(
        "sft",
        {"training": {"steps": 2, "mock_data": True}, "optimizer": {"lr": 1e-2}, "lr_scheduler": {"warmup_steps": 0}},
        {"tokenizer": {"new_special_tokens": TOKENS}},
        {"lora": {"rank": 2, "modules_to_save": HEADS, "peft_adapter": True}},
        stage="sft",
        base=base,
        tokenizer=extended(tmp_path / "tokenizer"),
        model_overrides={},
    )
    assert bench.run(run, ranks=2) == 0, (run.folder / "log.txt").read_text()
    result = read_result(run.folder)
    assert result.model_args["vocab_size"] == NEW
    given, exported = (load_file(folder / "model.safetensors") for folder in (base, result.export))
    rows = exported["model.embed_tokens.weight"]
    assert rows.shape[0] == NEW
    assert not torch.equal(rows[:OLD], given["model.embed_tokens.weight"]), "trained"
    expected = logits(AutoModelForCausalLM, result.export)
    found = with_peft_alone(result.adapter, tmp_path / "logits.safetensors")
    assert (found - expected).abs().max() / expected.abs().max() < TOLERANCE
