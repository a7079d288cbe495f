import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished_stage import write_outside_base

from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.outside_base import read_base
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.architectures.weights import module_names
from titanflow.config.checks.lora import find_modules, lora_warnings, matches
from titanflow.config.keys.training import Lora
from titanflow.config.module import Module

FLAVORS = {family: known["flavors"]["debugmodel"] for family, known in load_snapshot()["models"].items()}
LINEARS, OTHERS = module_names("llama3", FLAVORS["llama3"] | {"n_layers": 12})


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("wq", "layers.3.attention.wq", True),
        ("attention.wq", "layers.3.attention.wq", True),
        ("layers.3.attention.wq", "layers.3.attention.wq", True),
        ("q", "layers.3.attention.wq", False),
        ("w?", "layers.3.feed_forward.w2", True),
        ("layers.1?.*", "layers.11.attention.wo", True),
        ("layers.1?.*", "layers.1.attention.wo", False),
        ("norm", "norm", True),
        ("norm", "layers.0.attention_norm", False),
    ],
)
def test_a_name_is_matched_from_its_end_in_whole_parts(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_a_module_to_save_with_an_adapter_in_it_is_refused():
    settings = Lora(rank=2, modules_to_save=["layers.3.attention.wq"])
    _, (problem,) = find_modules(settings, LINEARS, OTHERS, tied=False)
    assert problem.message == "attention.wq would be trained whole and by an adapter"


LATENT = {"wq", "wkv_a", "wkv_b", "wo"}
EACH_FAMILYS = {
    "qwen3": ("debugmodel_moe", {"wq", "wk", "wv", "wo"}),
    "deepseek_v3": ("debugmodel", {*LATENT, "w1", "w2", "w3"}),
    "llama4": ("debugmodel", {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}),
}


@pytest.mark.parametrize(("family", "flavor", "expected"), [(key, *value) for key, value in EACH_FAMILYS.items()])
def test_unset_all_of_attention_and_feed_forward_that_a_family_with_experts_has(family, flavor, expected):
    names = module_names(family, load_snapshot()["models"][family]["flavors"][flavor])
    found, problems = find_modules(Lora(rank=2), *names, tied=False)
    assert problems == []
    assert {name.rpartition(".")[2] for name in found.targets} == expected
    assert not [name for name in found.targets if "experts" in name and "shared_experts" not in name]


def test_unset_a_model_without_such_layers_is_refused():
    _, problems = find_modules(Lora(rank=2), ["blocks.0.mix"], [], tied=False)
    assert "found 'attention.*', which no linear layer is called" in problems[0].message


def test_a_family_whose_layers_are_not_known_is_left_to_the_start_up():
    assert module_names("mine", {"n_layers": 2}) == ([], [])
    assert module_names("llama3", {}) == ([], [])


def test_lora_is_the_sfts_own(write, load):
    experiment = load(write(), "sft.lora.rank=4", "sft.lora.alpha=8", "sft.lora.modules_to_save=[norm, output]")
    assert experiment.modules["sft"].config["lora"] == {
        "rank": 4,
        "alpha": 8,
        "dropout": 0.0,
        "target_modules": None,
        "modules_to_save": ["norm", "output"],
        "rslora": False,
        "peft_adapter": False,
    }
    assert experiment.modules["pretrain"].config["lora"]["rank"] == 0
    (warning,) = experiment.warnings
    assert "lora.modules_to_save: [tokens]" in warning


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["sft.lora.rank=-1"], ["sft.lora.rank: found -1 (int)", "expected: a whole number, at least 0"]),
        (["sft.lora.rank=4", "sft.lora.alpha=0"], ["sft.lora.alpha: found 0", "expected: a number, more than 0"]),
        (["sft.lora.rank=4", "sft.lora.dropout=1"], ["sft.lora.dropout: found 1", "at least 0 and below 1"]),
        (["sft.lora.rank=4", "sft.lora.target_modules=[]"], ["sft.lora.target_modules: found []", "at least one"]),
        (
            ["sft.lora.rank=4", "sft.lora.target_modules=[wq, q_proj]"],
            [
                "--set sft.lora.target_modules=[wq, q_proj]: sft.lora.target_modules: found 'q_proj', "
                "which no linear layer is called; matched by the others: attention.wq",
                "q_proj of peft is wq here",
                "expected: attention.wq, attention.wk,",
            ],
        ),
        (
            ["sft.lora.rank=4", "sft.lora.target_modules=[layers.2.*]"],
            ["found 'layers.2.*', which no linear layer is called"],
        ),
        (
            ["sft.lora.rank=4", "sft.lora.modules_to_save=[lm_head]"],
            ["found 'lm_head', which no module is called", "lm_head of peft is output here"],
        ),
        (["pretrain.lora.rank=4"], ["pretrain.lora.rank: LoRA trains beside a finished base, and pretrain has none"]),
        (
            ["sft.lora.rank=4", "sft.parallelism.pipeline_parallel_degree=2"],
            ["sft.parallelism.pipeline_parallel_degree: found 2, with LoRA", "expected: 1"],
        ),
        (
            ["sft.lora.rank=4", "sft.model.converters=[quantize.linear.float8]"],
            ["sft.model.converters: found", "plain linear layers"],
        ),
        (
            ["sft.lora.rank=4", "sft.optimizer.early_step_in_backward=true"],
            ["sft.optimizer.early_step_in_backward: found True, with LoRA"],
        ),
        (["sft.lora.rnk=4"], ["did you mean `sft.lora.rank`"]),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_the_plan(write, mistakes, settings, expected):
    message = mistakes(write(), *settings)
    for part in expected:
        assert part in message


def test_tokens_that_no_one_trains_are_warned_of(write, load):
    both = "sft.lora.modules_to_save=[tok_embeddings, output]"
    assert load(write(), "sft.lora.rank=4", both).warnings == []


def model_folder(folder: Path, **tokenizer_config: str) -> Path:
    """A model in transformers' format, as far as a plan reads it."""
    folder.mkdir()
    config = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"architectures": ["LlamaForCausalLM"], "vocab_size": 300, "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


def warned(base: BaseArchitecture, **tokenizer: Any) -> bool:
    """Whether the plan warns of tokens that no one trains."""
    lora = {"rank": 4, "modules_to_save": []}
    config = {"lora": {**lora, "target_modules": None}, "tokenizer": {"new_special_tokens": [], **tokenizer}}
    config |= {"model": {"name": base.model_name}, "optimizer": {"group_lr": {}}}
    warnings = lora_warnings(Module("sft", "sft", "torchtitan", config, {}, base=base))
    assert all(f"as {base.stage} made them" in warning for warning in warnings)
    return bool(warnings)


def test_a_base_is_asked_what_it_read_whatever_it_is_called(tmp_path):
    finished = read_base(write_outside_base(tmp_path / "sft"))
    assert warned(finished)
    assert warned(replace(finished, stage="pre_trainer"))
    assert not warned(replace(finished, kind="sft"))
    instruct = read_base(model_folder(tmp_path / "pretrain", chat_template="{{ messages }}"))
    assert instruct.stage == "pretrain"
    assert not warned(instruct)
    assert warned(instruct, new_special_tokens=["<|im_end|>"])
    assert warned(read_base(model_folder(tmp_path / "plain")))


def test_a_rank_that_no_layer_can_use_is_refused_and_one_that_some_can_t_is_a_warning(write, load, mistakes) -> None:
    # The width is 64; two of four heads for keys and values make theirs 32.
    heads = [f"pretrain.model.{key}" for key in ("n_heads=4", "n_kv_heads=2")]
    trained = "sft.lora.modules_to_save=[tok_embeddings, output]"
    attention, narrow = (f"sft.lora.target_modules=[{names}]" for names in ("wq, wk", "wk"))
    assert load(write(), *heads, trained, attention, "sft.lora.rank=32").warnings == []
    (warning,) = load(write(), *heads, trained, attention, "sft.lora.rank=64").warnings
    assert warning.startswith("sft.lora.rank (--set sft.lora.rank=64): the update of attention.wk")
    assert "has a rank of at most 32" in warning
    message = mistakes(write(), *heads, trained, attention, "sft.lora.rank=65")
    assert "sft.lora.rank: found 65" in message
    assert "expected: at most 64, for attention.wq, attention.wk" in message
    assert "rank: 0 trains the layers themselves" in message
    assert "expected: at most 32" in mistakes(write(), *heads, trained, narrow, "sft.lora.rank=33")


def test_what_is_set_without_a_rank_is_said_to_have_no_effect(write, load):
    warnings = load(write(), "sft.lora.alpha=8").warnings
    assert warnings == ["sft.lora.alpha (--set sft.lora.alpha=8) has no effect: lora.rank is 0"]
