import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_exports import POSITIONS, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer

from titan.eval_model import batch_size_for, load_model, model_folders
from titan.export import export_dcp
from titanflow.config.additions import Evaluate
from titanflow.errors import ConfigError
from titanflow.stage import StageRun


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    args = tiny_args("llama3")
    checkpoint = save_checkpoint(sensitised("llama3", args), folder / "step-1")
    return export_dcp(
        checkpoint, "llama3", args, write_byte_tokenizer(folder / "tokenizer"), folder / "out", POSITIONS
    ).folder


def test_a_text_of_our_models_begins_after_the_end_of_text(export: Path) -> None:
    model = load_model(export, Evaluate(), trained_here=True)

    assert model.prefix_token_id == model.tokenizer.eos_token_id == 0
    assert model.tok_encode("a") == model.tokenizer.encode("a", add_special_tokens=False)
    assert (model.max_length, model.model.dtype, model.device.type) == (POSITIONS, torch.float32, "cpu")


def test_a_foreign_models_text_begins_with_what_its_tokenizer_says(export: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in export.iterdir():
        (foreign / path.name).write_bytes(path.read_bytes())
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    (foreign / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|im_start|>"}))

    assert load_model(foreign, Evaluate(), trained_here=False).prefix_token_id == 1


def test_a_model_that_brings_code_of_its_own_is_not_run(export: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(export, foreign)
    config = json.loads((foreign / "config.json").read_text())
    auto_map = {"AutoModelForCausalLM": "modeling.LlamaForCausalLM"}
    (foreign / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    (foreign / "modeling.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\n")
    run = StageRun(stage="evaluate", experiment="e", run="r", folder=tmp_path / "evaluate")

    with pytest.raises(ConfigError, match=r"models\.mine: .*brings code of its own \(modeling\.py"):
        model_folders(run, Evaluate(models={"mine": str(foreign)}))
    with pytest.raises(ConfigError, match=r"brings code of its own"):
        load_model(foreign, Evaluate(), trained_here=False)

    assert not (tmp_path / "was run").exists()


def task(output_type: str) -> dict[str, Any]:
    return {"tasks": {"a": SimpleNamespace(OUTPUT_TYPE=output_type)}}


@pytest.mark.parametrize(
    ("device", "batch_size", "output_type", "max_length", "expected"),
    [
        ("cpu", 16, "multiple_choice", 512, 16),
        ("cpu", "auto", "multiple_choice", 512, 16),
        ("cpu", 16, "loglikelihood_rolling", 512, 4),
        ("cpu", 2, "loglikelihood_rolling", 512, 2),
        ("cpu", 16, "loglikelihood_rolling", 8192, 1),
        ("cuda", 16, "loglikelihood_rolling", 8192, 16),
        ("cuda", "auto", "multiple_choice", 512, "auto"),
    ],
)
def test_full_windows_of_text_go_a_few_at_a_time_on_a_cpu(
    device: str, batch_size: int | str, output_type: str, max_length: int, expected: int | str
) -> None:
    model = SimpleNamespace(device=torch.device(device), max_length=max_length)

    assert batch_size_for(task(output_type), model, Evaluate(batch_size=batch_size)) == expected
