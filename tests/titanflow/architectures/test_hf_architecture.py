import re
from typing import Any

import pytest

from titanflow.architectures.config_json import read_architecture
from titanflow.architectures.families.llama3 import feed_forward
from titanflow.common.errors import ConfigError

# Llama 3.1 8B's own config.json, as transformers 4 wrote it.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
# Qwen3-0.6B's.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


# Qwen2.5-0.5B's.
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def read(config: dict[str, Any], **changes: Any) -> tuple[str, str, dict[str, Any]]:
    values = {key: value for key, value in (config | changes).items() if value != "absent"}
    return read_architecture(values, "base/config.json")


def test_a_llama_is_torchtitans_flavor_of_it() -> None:
    from titanflow.architectures.torchtitan import load_snapshot

    family, flavor, args = read(LLAMA)
    known = load_snapshot()["models"]["llama3"]["flavors"]["8B"]
    assert (family, flavor) == ("llama3", "8B")
    # How the width is put differs; that it is the same, a test of its own says.
    width = {"multiple_of", "ffn_dim_multiplier"}
    assert {key: args[key] for key in args.keys() - width} == {key: known[key] for key in known.keys() - width}


@pytest.mark.parametrize(
    ("config", "family", "flavor", "positions"), [(QWEN3, "qwen3", "0.6B", 40960), (QWEN2, "qwen2", "0.5B", 32768)]
)
def test_a_qwen_is_a_flavor_of_its_family(config: dict, family: str, flavor: str, positions: int) -> None:
    from titanflow.architectures.torchtitan import load_snapshot

    known = load_snapshot()["models"][family]["flavors"][flavor]
    assert read(config) == (family, flavor, {**known, "max_seq_len": positions})


def test_a_window_that_isnt_used_is_none() -> None:
    windowless = read(QWEN2, sliding_window="absent", max_window_layers="absent", use_sliding_window="absent")
    assert read(QWEN2) == windowless == read(QWEN2, sliding_window=64, max_window_layers=0)


def test_both_versions_of_transformers_are_read_alike() -> None:
    nested = {**LLAMA["rope_scaling"], "rope_theta": 500000.0}
    assert read(LLAMA, rope_parameters=nested, rope_scaling="absent", rope_theta="absent") == read(LLAMA)
    older = {"type" if key == "rope_type" else key: value for key, value in LLAMA["rope_scaling"].items()}
    assert read(LLAMA, rope_scaling=older) == read(LLAMA)


def test_no_scaling_is_a_factor_of_one() -> None:
    assert read(LLAMA, rope_scaling=None)[2]["rope_scaling_args"]["scaling_factor"] == 1.0
    assert read(LLAMA, rope_scaling="absent", rope_theta="absent")[2]["rope_theta"] == 10_000.0


def test_a_size_that_no_flavor_has_lies_over_some_flavor() -> None:
    _, flavor, args = read(LLAMA, hidden_size=64, num_attention_heads=4, num_key_value_heads="absent")
    assert flavor == "debugmodel"
    assert (args["dim"], args["n_heads"], args["n_kv_heads"], args["n_layers"]) == (64, 4, 4, 32)


@pytest.mark.parametrize("dim", [64, 100, 4096, 8192])
@pytest.mark.parametrize("width", [1, 72, 170, 171, 11008, 14336, 28672])
def test_the_feed_forward_has_exactly_its_width(dim: int, width: int) -> None:
    args = feed_forward(dim, width)
    # torchtitan 0.2.2, models/llama3/model/model.py, FeedForward
    hidden = int(2 * (4 * dim) / 3)
    if args["ffn_dim_multiplier"] is not None:
        hidden = int(args["ffn_dim_multiplier"] * hidden)
    hidden = args["multiple_of"] * ((hidden + args["multiple_of"] - 1) // args["multiple_of"])
    assert hidden == width


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        (LLAMA, {"architectures": ["GPT2LMHeadModel"]}, "architectures: found 'GPT2LMHeadModel'"),
        (LLAMA, {"architectures": "absent"}, "expected: LlamaForCausalLM, Qwen2ForCausalLM"),
        (LLAMA, {"tie_word_embeddings": True}, "tie_word_embeddings: found true: torchtitan's llama3 can't"),
        (LLAMA, {"attention_bias": True}, "attention_bias: found True"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias: found True"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act: found 'gelu'"),
        (LLAMA, {"head_dim": 64}, "head_dim: found 64"),
        (LLAMA, {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling: found 'yarn'"),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rope_scaling: lacks low_freq_factor"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor: found 0.5"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config: found"),
        (LLAMA, {"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, "auto_map: the model brings code of its own"),
        (LLAMA, {"hidden_size": "absent"}, "hidden_size: found None"),
        (LLAMA, {"vocab_size": "many"}, "vocab_size: found 'many'"),
        (QWEN3, {"use_sliding_window": True}, "use_sliding_window: found True"),
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window: found True"),
        (QWEN2, {"head_dim": 32}, "head_dim: found 32"),
        (QWEN2, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "default: qwen2 has no scaling here"),
        (QWEN3, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: found 'yarn'"),
    ],
)
def test_what_torchtitan_computes_otherwise_is_refused(config: dict, changes: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        read(config, **changes)
    assert "base/config.json" in str(caught.value)


def test_every_reason_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read(LLAMA, tie_word_embeddings=True, attention_bias=True, num_hidden_layers=0)
    assert [problem.key for problem in caught.value.problems] == [
        "num_hidden_layers",
        "tie_word_embeddings",
        "attention_bias",
    ]
