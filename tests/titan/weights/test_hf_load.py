import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_exports import write_byte_tokenizer
from wrong_exports import edit_config, edit_weights, export_tiny

from titan.weights.hf_folder import load_folder, load_tokenizer
from titanflow.common.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    return export_tiny(folder, "llama3", {}, write_byte_tokenizer(folder / "tokenizer")).folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copied")


def test_a_right_folder_fits_and_does_not_train(exported: Path) -> None:
    model, wrong = load_folder(exported, torch.bfloat16)
    assert wrong == {"missing": (), "unexpected": (), "mismatched": ()}
    assert (model.training, model.dtype) == (False, torch.bfloat16)
    assert load_tokenizer(exported).eos_token_id == 0


def test_what_does_not_fit_is_named(copied: Path) -> None:
    edit_weights(copied, lambda weights: weights.update({"model.norm.scale": weights.pop("model.norm.weight")}))
    _, wrong = load_folder(copied)
    assert wrong == {"missing": ("model.norm.weight",), "unexpected": ("model.norm.scale",), "mismatched": ()}


def test_a_pickle_is_not_loaded(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    torch.save(weights, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"can't be loaded: .*safetensors"):
        load_folder(copied)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_bad_input_and_no_fault(copied: Path, name: str) -> None:
    (copied / name).write_bytes((copied / name).read_bytes()[:40])
    with pytest.raises(DataError, match=f"^{copied}: can't be loaded: .+\n    `titanflow verify` names"):
        print(load_tokenizer(copied), load_folder(copied))


def test_foreign_code_is_refused(copied: Path) -> None:
    edit_config(copied, auto_map={"AutoModelForCausalLM": "other/repository--modeling.Model"})
    with pytest.raises(ConfigError, match="code of its own"):
        load_folder(copied)
