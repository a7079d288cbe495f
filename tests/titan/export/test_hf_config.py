import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_exports import tiny_args, write_byte_tokenizer
from torchtitan.models.llama3.model.args import RoPEScalingArgs, TransformerModelArgs
from torchtitan.models.llama3.model.model import FeedForward

from titan.export.files import (
    SpecialTokens,
    add_rope_for_transformers_4,
    export_tokenizer,
    make_config,
    make_generation_config,
)
from titan.models.registry import train_spec
from titanflow.architectures.blocks import swiglu_width
from titanflow.common.errors import DataError

TOKENS = SpecialTokens(bos=None, eos=(0, 2), pad=3, vocabulary=260)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizers") / "bytes")


def feed_forward_width(args: TransformerModelArgs) -> int:
    with torch.device("meta"):
        layer = FeedForward(args.dim, 4 * args.dim, args.multiple_of, args.ffn_dim_multiplier)
    return layer.w1.out_features


@pytest.mark.parametrize("flavor", ["debugmodel", "8B", "70B", "405B"])
def test_the_width_of_the_feed_forward_is_torchtitans(flavor: str) -> None:
    args = train_spec("llama3").model_args[flavor]

    assert swiglu_width(args.dim, args.multiple_of, args.ffn_dim_multiplier) == feed_forward_width(args)


@pytest.mark.parametrize(("dim", "multiple_of", "multiplier"), [(64, 32, None), (100, 7, 1.3), (192, 256, 0.4)])
def test_the_width_is_rounded_as_torchtitan_rounds(dim: int, multiple_of: int, multiplier: float | None) -> None:
    args = TransformerModelArgs(dim=dim, multiple_of=multiple_of, ffn_dim_multiplier=multiplier)

    assert swiglu_width(args.dim, args.multiple_of, args.ffn_dim_multiplier) == feed_forward_width(args)


def test_a_llamas_config_says_each_of_its_arguments() -> None:
    scaling = RoPEScalingArgs(2.0, 1.5, 5.0, 64)
    args = tiny_args("llama3", norm_eps=3e-6, rope_scaling_args=scaling)

    config = make_config("llama3", args, TOKENS, 256)

    assert (
        config.to_dict()
        | {
            "architectures": None,
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 256,
            "rms_norm_eps": 3e-6,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "hidden_act": "silu",
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": 3,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 2.0,
                "low_freq_factor": 1.5,
                "high_freq_factor": 5.0,
                "original_max_position_embeddings": 64,
            },
        }
        == config.to_dict()
    )


def test_torchtitans_default_scaling_is_written_although_the_user_never_asked_for_it() -> None:
    config = make_config("llama3", tiny_args("llama3"), TOKENS, 256)

    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.rope_parameters["factor"] == 8.0


def test_a_scaling_by_one_is_no_scaling() -> None:
    args = tiny_args("llama3", rope_scaling_args=RoPEScalingArgs(scaling_factor=1.0))

    assert make_config("llama3", args, TOKENS, 256).rope_parameters == {
        "rope_type": "default",
        "rope_theta": 10_000.0,
    }


def test_without_kv_heads_there_are_as_many_as_heads() -> None:
    assert make_config("llama3", tiny_args("llama3", n_kv_heads=None), TOKENS, 256).num_key_value_heads == 4


@pytest.mark.parametrize("tied", [True, False])
def test_a_qwens_config_says_each_of_its_arguments(tied: bool) -> None:
    config = make_config("qwen3", tiny_args("qwen3", enable_weight_tying=tied), TOKENS, 128)

    assert (config.head_dim, config.intermediate_size, config.rms_norm_eps) == (32, 96, 1e-6)
    assert (config.attention_bias, config.use_sliding_window, config.max_position_embeddings) == (False, False, 128)
    assert config.tie_word_embeddings is tied
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 1_000_000.0}


@pytest.mark.parametrize("tied", [True, False])
def test_a_qwen2_has_no_switch_for_its_biases(tied: bool) -> None:
    config = make_config("qwen2", tiny_args("qwen2", enable_weight_tying=tied), TOKENS, 128)

    assert not hasattr(config, "attention_bias")
    assert (config.intermediate_size, config.rms_norm_eps, config.use_sliding_window) == (96, 1e-6, False)
    assert config.tie_word_embeddings is tied
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10_000.0}


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    too_many = dataclasses.replace(TOKENS, vocabulary=301)

    with pytest.raises(DataError, match="301 tokens and the model 300 embeddings"):
        make_config("llama3", tiny_args("llama3"), too_many, 256)


def test_the_ids_are_the_tokenizers(tokenizer: Path) -> None:
    assert SpecialTokens.read(tokenizer) == TOKENS


def test_a_token_that_ends_a_turn_by_its_name_counts_where_no_turn_was_trained(tokenizer: Path) -> None:
    assert SpecialTokens.read(tokenizer).eos == (0, 2)
    # <|im_end|> may part such a turn.
    assert SpecialTokens.read(tokenizer, (1,)).eos == (0, 1)
    assert SpecialTokens.read(tokenizer, (2, 0)).eos == (0, 2)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        SpecialTokens.read(tmp_path)


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = write_byte_tokenizer(tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')

    with pytest.raises(DataError, match="no eos_token"):
        SpecialTokens.read(folder)


def test_a_generation_ends_with_the_turn_or_the_text_and_at_no_fixed_length(tmp_path: Path) -> None:
    make_generation_config(TOKENS).save_pretrained(tmp_path)

    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["eos_token_id"] == [0, 2]
    assert written["pad_token_id"] == 3
    assert not {"max_new_tokens", "max_length"} & set(written)


@pytest.mark.parametrize(
    ("family", "scaling"),
    [
        (
            "llama3",
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        ("qwen3", None),
        ("qwen2", None),
    ],
)
def test_transformers_4_finds_theta_and_scaling_where_it_looks(tmp_path: Path, family: str, scaling: object) -> None:
    args = tiny_args(family)
    make_config(family, args, TOKENS, 256).save_pretrained(tmp_path)

    add_rope_for_transformers_4(tmp_path)

    written = json.loads((tmp_path / "config.json").read_text())
    assert written["rope_theta"] == args.rope_theta == written["rope_parameters"]["rope_theta"]
    assert written["rope_scaling"] == scaling


def test_transformers_5s_own_tokenizer_class_and_notes_are_replaced(tmp_path: Path) -> None:
    source = write_byte_tokenizer(tmp_path / "tokenizer")
    notes = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True, "eos_token": "x"}
    (source / "tokenizer_config.json").write_text(json.dumps(notes))
    out = tmp_path / "out"
    out.mkdir()

    export_tokenizer(source, out)

    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "x"}
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").read_text() == (source / "chat_template.jinja").read_text()


def test_a_tokenizer_class_that_transformers_4_has_is_kept(tmp_path: Path) -> None:
    source = write_byte_tokenizer(tmp_path / "tokenizer")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2TokenizerFast"}')
    out = tmp_path / "out"
    out.mkdir()

    export_tokenizer(source, out)

    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "Qwen2TokenizerFast"


def test_another_chat_template_goes_before_the_tokenizers_own(tmp_path: Path) -> None:
    source = write_byte_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "out"
    out.mkdir()

    export_tokenizer(source, out, chat_template="{{ messages[0].content }}")

    assert (out / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
