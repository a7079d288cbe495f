from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_exports import QWEN3_EXPERTS, sensitised, tiny_args

from titan.models.registry import train_spec
from titan.weights.hf_folder import from_folder, to_hugging_face

MODELS = {
    "llama3": {},
    "qwen3-tied": {"enable_weight_tying": True},
    "qwen3-experts": QWEN3_EXPERTS,
    "qwen2-tied": {"enable_weight_tying": True},
    "deepseek_v3": {},
    "tdtf": {},
}


@pytest.mark.parametrize("name", MODELS)
def test_layer_by_layer_gives_what_the_adapter_gives_for_the_whole(name: str, tmp_path: Path) -> None:
    family = name.partition("-")[0]
    args = tiny_args(family, **MODELS[name])
    native = sensitised(family, args).state_dict()
    adapter = train_spec(family).state_dict_adapter(args, None)

    renamed = dict(to_hugging_face(native, adapter))

    whole = adapter.to_hf(dict(native))
    assert list(renamed) == list(whole)
    assert all(torch.equal(renamed[key], whole[key]) for key in whole)
    names = sorted(renamed)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({key: renamed[key].clone() for key in part}, tmp_path / f"model-{number}.safetensors")
    back = dict(from_folder(tmp_path, native, adapter))
    assert list(back) == list(native)
    assert all(torch.equal(back[key], native[key]) for key in native)


def test_what_a_folder_lacks_is_none(tmp_path: Path) -> None:
    args = tiny_args("qwen3", **QWEN3_EXPERTS)
    native = sensitised("qwen3", args).state_dict()
    adapter = train_spec("qwen3").state_dict_adapter(args, None)
    weights = {key: value.clone() for key, value in to_hugging_face(native, adapter)}
    for key in ("model.layers.1.mlp.experts.3.up_proj.weight", "model.norm.weight"):
        del weights[key]
    save_file(weights, tmp_path / "model.safetensors")

    back = from_folder(tmp_path, native, adapter)

    assert [key for key, value in back if value is None] == ["layers.1.moe.experts.w3", "norm.weight"]
