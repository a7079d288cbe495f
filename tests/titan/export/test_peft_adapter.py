import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_adapters import finished_base, finished_lora
from tiny_exports import VOCAB, tiny_args, write_byte_tokenizer
from transformers import AutoModelForCausalLM

from titan.export.export import export_checkpoint
from titan.export.peft_adapter import main, write_peft_adapter
from titan.weights.stage_model import read_model
from titanflow.common.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

TOKENS = torch.arange(60)[None] * 7 % VOCAB
LORAS: dict[str, dict[str, Any]] = {
    "default": {"rank": 4, "alpha": 8.0, "dropout": 0.1},
    "rslora, some layers": {"rank": 3, "alpha": 5.0, "rslora": True, "target_modules": ["layers.1.*.wk", "wq", "w2"]},
    "embeddings and head whole": {"rank": 2, "modules_to_save": ["tok_embeddings", "output"]},
    "head, whole modules": {
        "rank": 2,
        "target_modules": ["wk", "output"],
        "modules_to_save": ["tok_embeddings", "norm", "layers.0.attention_norm", "layers.2.attention.wq"],
    },
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizers") / "bytes")


@pytest.fixture(scope="module", params=["llama3", "qwen3", "qwen2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A finished base with its export; the folder's name is the family."""
    folder = tmp_path_factory.mktemp("bases") / request.param
    finished_base(folder, request.param, tiny_args(request.param), tokenizer=tokenizer)
    export_checkpoint(folder, folder / "export")
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(TOKENS).logits


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("lora", LORAS.values(), ids=list(LORAS))
def test_peft_on_the_bases_export_computes_what_the_merged_export_does(
    base: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    stage = finished_lora(tmp_path / "sft", base, base.name, tiny_args(base.name), lora)
    merged = export_checkpoint(stage, stage / "export")
    adapter = write_peft_adapter(read_model(stage), stage / "adapter")

    untouched = AutoModelForCausalLM.from_pretrained(base / "export", dtype=torch.float32)
    before = logits(untouched)
    adapted = PeftModel.from_pretrained(untouched, adapter)
    expected = logits(AutoModelForCausalLM.from_pretrained(merged.folder, dtype=torch.float32))

    assert relative_error(logits(adapted), expected) < 1e-5
    assert relative_error(before, expected) > 0.1, "adapters that do nothing prove nothing"
    # Rounding alone took 3e-7 to 1.1e-5 with eight draws of each base's weights.
    assert merged.parity["relative_error"] < 3e-5, "compared with the native model, adapters unmerged"


def test_latent_attention_and_the_router_have_adapters_and_shared_experts_none(tmp_path: Path, tokenizer: Path) -> None:
    args = tiny_args("deepseek_v3")
    base = finished_base(tmp_path / "base", "deepseek_v3", args, tokenizer=tokenizer)
    export_checkpoint(base, base / "export")
    lora = {"rank": 4, "target_modules": ["wq_a", "wq_b", "wkv_a", "wkv_b", "wo", "gate"]}
    stage = finished_lora(tmp_path / "sft", base, "deepseek_v3", args, lora)
    merged = export_checkpoint(stage, stage / "export")
    adapter = write_peft_adapter(read_model(stage), stage / "adapter")

    adapted = AutoModelForCausalLM.from_pretrained(base / "export", dtype=torch.float32)
    before = logits(adapted)
    expected = logits(AutoModelForCausalLM.from_pretrained(merged.folder, dtype=torch.float32))
    assert relative_error(logits(PeftModel.from_pretrained(adapted, adapter)), expected) < 1e-5
    assert relative_error(before, expected) > 0.1

    shared = finished_lora(tmp_path / "shared", base, "deepseek_v3", args, {"rank": 2, "target_modules": ["wo", "w1"]})
    with pytest.raises(ConfigError, match=r"takes adapters on feed_forward\.w1, moe\.shared_experts\.w1 for"):
        write_peft_adapter(read_model(shared), shared / "adapter")


def test_an_adapter_on_top_of_an_adapter_fits_the_first_ones_export(base: Path, tmp_path: Path) -> None:
    args = tiny_args(base.name)
    first = finished_lora(tmp_path / "first", base, base.name, args, {"rank": 2, "modules_to_save": ["norm"]})
    second = finished_lora(tmp_path / "second", first, base.name, args, {"rank": 3, "target_modules": ["wq", "w1"]})
    export_checkpoint(first, first / "export")
    export_checkpoint(second, second / "export")
    adapter = write_peft_adapter(read_model(second), second / "adapter")

    config = json.loads((adapter / "adapter_config.json").read_text())
    below = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"], dtype=torch.float32)
    expected = logits(AutoModelForCausalLM.from_pretrained(second / "export", dtype=torch.float32))
    adapted = logits(PeftModel.from_pretrained(below, adapter))

    assert config["base_model_name_or_path"] == str(first / "export")
    assert relative_error(adapted, expected) < 1e-5


def test_the_config_is_pefts(base: Path, tmp_path: Path) -> None:
    stage = finished_lora(tmp_path / "sft", base, base.name, tiny_args(base.name), LORAS["default"])

    adapter = write_peft_adapter(read_model(stage), tmp_path / "adapter")

    tokenizer = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        *tokenizer,
    ]
    assert json.loads((adapter / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": str(base / "export"),
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        "modules_to_save": None,
    }


def test_a_stage_without_adapters_is_refused(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no LoRA stage"):
        write_peft_adapter(read_model(base), tmp_path / "adapter")
    assert main([str(base), str(tmp_path / "adapter")]) == 2
    assert "no LoRA stage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_adapter_is_not_overwritten(base: Path, tmp_path: Path) -> None:
    stage = finished_lora(tmp_path / "sft", base, base.name, tiny_args(base.name), {"rank": 2})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("somebody's work")

    with pytest.raises(DataError, match="something that is no adapter"):
        write_peft_adapter(read_model(stage), tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "somebody's work"
    with pytest.raises(DataError, match=r"(?s)notes\.txt: .* no adapter.*expected: .*older adapter"):
        write_peft_adapter(read_model(stage), tmp_path / "out" / "notes.txt")
    assert (tmp_path / "out" / "notes.txt").read_text() == "somebody's work"
    assert main([str(stage), str(tmp_path / "new")]) == 0
    assert main([str(stage), str(tmp_path / "new")]) == 0
