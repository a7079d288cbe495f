import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_exports import POSITIONS, tiny_args
from transformers import DeepseekV3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from titan.export.files import SpecialTokens, add_rope_for_transformers_4, make_config
from titan.models.registry import train_spec

TOKENS = SpecialTokens(bos=None, eos=(0,), pad=3, vocabulary=260)
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "beta_fast": 8.0,
    "beta_slow": 1.0,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
    "attention_factor": 1.0,
    "original_max_position_embeddings": 64,
}


def config_of(positions: int = POSITIONS, **changes: Any) -> DeepseekV3Config:
    config: DeepseekV3Config = make_config("deepseek_v3", tiny_args("deepseek_v3", **changes), TOKENS, positions)
    return config


def test_the_config_says_each_argument() -> None:
    written = config_of().to_dict()

    expected = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rope_interleave": True,
        "rope_parameters": YARN,
        "num_nextn_predict_layers": 0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }
    assert {key: written[key] for key in expected} == expected


def test_rope_is_stretched_by_its_factor_alone() -> None:
    plain = {"rope_type": "default", "rope_theta": 10_000.0}

    assert config_of(32).rope_parameters == config_of(65).rope_parameters == YARN
    assert config_of(rope_factor=1.0).rope_parameters == config_of(32, rope_factor=1.0).rope_parameters == plain


@pytest.mark.parametrize("mscale", [0.0, 0.7, 1.0])
def test_cosines_and_sines_stay_as_they_are_whatever_mscale(mscale: float) -> None:
    _, factor = ROPE_INIT_FUNCTIONS["yarn"](config_of(mscale=mscale), "cpu")

    assert factor == 1.0


def test_without_groups_there_is_one_and_without_a_rank_one_matrix() -> None:
    experts = dataclasses.replace(tiny_args("deepseek_v3").moe_args, num_expert_groups=None, num_limited_groups=None)
    config = config_of(moe_args=experts, q_lora_rank=0)

    assert (config.n_group, config.topk_group, config.q_lora_rank) == (1, 1, None)


def test_transformers_4_finds_yarn_where_it_looks(tmp_path: Path) -> None:
    config_of().save_pretrained(tmp_path)
    add_rope_for_transformers_4(tmp_path)

    written = json.loads((tmp_path / "config.json").read_text())
    assert written["rope_theta"] == 10_000.0
    assert written["rope_scaling"] == {key: value for key, value in YARN.items() if key != "rope_theta"}


def test_the_671b_is_deepseeks_own() -> None:
    """https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json, but for what torchtitan has otherwise."""
    args = dataclasses.replace(train_spec("deepseek_v3").model_args["671B"], norm_eps=1e-6)
    published = DeepseekV3Config()

    config = make_config("deepseek_v3", args, TOKENS, 163_840)

    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "n_shared_experts",
        "n_routed_experts",
        "routed_scaling_factor",
        "kv_lora_rank",
        "q_lora_rank",
        "qk_rope_head_dim",
        "v_head_dim",
        "qk_nope_head_dim",
        "n_group",
        "topk_group",
        "num_experts_per_tok",
        "first_k_dense_replace",
        "norm_topk_prob",
        "hidden_act",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_interleave",
        "attention_bias",
    )
    assert {key: getattr(config, key) for key in same} == {key: getattr(published, key) for key in same}
    rope = {"factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    rope |= {"original_max_position_embeddings": 4096, "rope_theta": 10_000.0}
    assert {key: config.rope_parameters[key] for key in rope} == rope
