import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_exports import POSITIONS
from tiny_hugging_face import LLAMA3_ROPE, write_hugging_face

from titan.models.registry import model_args_from, train_spec
from titan.weights.hf_folder import check_hf_weights
from titanflow.architectures.outside_base import read_base
from titanflow.common.errors import ConfigError
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

CASES = {
    "llama": ("LlamaForCausalLM", {}),
    "llama, RoPE scaled": ("LlamaForCausalLM", {"rope_parameters": LLAMA3_ROPE}),
    "llama, a narrow feed-forward": ("LlamaForCausalLM", {"intermediate_size": 72}),
    "qwen3": ("Qwen3ForCausalLM", {"tie_word_embeddings": False}),
    "qwen3, tied": ("Qwen3ForCausalLM", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": False}),
    "qwen2, tied": ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
}


def model_of(folder: Path) -> tuple[Any, Any]:
    base = read_base(folder)
    return train_spec(base.model_name), model_args_from(base.model_name, base.model_args)


def loaded(folder: Path) -> Any:
    """The native model with the folder's weights, loaded by torchtitan's own checkpointer."""
    from torchtitan.components.checkpoint import MODEL, CheckpointManager, ModelWrapper

    spec, args = model_of(folder)
    model = spec.model_cls(args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    states = {MODEL: ModelWrapper([model])}
    manager: Any = SimpleNamespace(sd_adapter=spec.state_dict_adapter(args, None), states=states)
    CheckpointManager.dcp_load(manager, states[MODEL].state_dict(), str(folder), True, False)
    return model.eval()


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("case", CASES)
def test_the_native_model_computes_what_transformers_does(tmp_path: Path, case: str) -> None:
    architecture, changes = CASES[case]
    model = write_hugging_face(tmp_path / "base", architecture, **changes)
    check_hf_weights(tmp_path / "base", *model_of(tmp_path / "base"))
    tokens = torch.randint(300, (2, POSITIONS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = model(tokens).logits, loaded(tmp_path / "base")(tokens)
    assert (found - expected).abs().max() / expected.abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_weights_in_half_precision_become_the_models(tmp_path: Path) -> None:
    model = write_hugging_face(tmp_path / "base", "LlamaForCausalLM", torch.bfloat16)
    found = loaded(tmp_path / "base").output.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, model.lm_head.weight)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "base"
    write_hugging_face(folder, "LlamaForCausalLM")
    return folder


def changed(llama: Path, folder: Path, **weights: torch.Tensor | None) -> Path:
    """A copy with weights added, replaced or (None) left out."""
    folder.mkdir()
    for path in llama.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(llama / "model.safetensors") | weights
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"model.norm.weight": None}, "lacks model.norm.weight"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}, "q_proj.bias, which the model lacks"),
        ({"model.layers.2.mlp.up_proj.weight": torch.zeros(2)}, "layers.2.mlp.up_proj.weight, which the model lacks"),
        ({"lm_head.weight": torch.zeros(300, 32)}, r"has lm_head.weight of shape \(300, 32\)"),
    ],
)
def test_other_weights_are_refused(llama: Path, tmp_path: Path, weights: dict, expected: str) -> None:
    folder = changed(llama, tmp_path / "base", **weights)
    with pytest.raises(ConfigError, match=expected):
        check_hf_weights(folder, *model_of(folder))


def test_a_buffer_of_old_checkpoints_is_no_weight(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "base", **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    check_hf_weights(folder, *model_of(folder))


def test_a_weight_in_two_files_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "base")
    save_file({"model.norm.weight": torch.zeros(64)}, folder / "consolidated.safetensors")
    with pytest.raises(ConfigError, match=r"model\.norm\.weight twice"):
        check_hf_weights(folder, *model_of(folder))


def test_a_config_of_more_layers_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match="and 4 more"):
        check_hf_weights(folder, *model_of(folder))


@pytest.mark.slow
def test_an_sft_starts_from_it_and_exports_it(bench, llama: Path) -> None:
    base = read_base(llama)
    run = bench.stage(
        "sft",
        # At a learning rate of nothing the export must be what was loaded, to the bit.
        {"training": {"steps": 1}, "optimizer": {"lr": 0.0}, "lr_scheduler": {"warmup_steps": 0}},
        stage="sft",
        base=llama,
        tokenizer=llama,
        model_overrides={},
        data=PreparedData(train=bench.data / "chats"),
    )
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    result = read_result(run.folder)
    exported, given = load_file(result.export / "model.safetensors"), load_file(llama / "model.safetensors")
    assert exported.keys() == given.keys()
    assert all(torch.equal(exported[key], given[key]) for key in given)
    config = json.loads((result.export / "config.json").read_text())
    assert config["max_position_embeddings"] == POSITIONS
    assert config["intermediate_size"] == 160
    assert result.tokenizer_digest == base.tokenizer_digest
    assert "Inherited model.dim: 64 from base" in map(str, result.inheritance)
