"""Qwen2.5 against what was published: configs, parameters, names, and transformers' own model."""

import re
from pathlib import Path

import pytest
import torch
from tiny_exports import POSITIONS, sensitised, tiny_args
from transformers import Qwen2Config, Qwen2ForCausalLM

from titan.export.files import SpecialTokens, make_config
from titan.export.parity import TOLERANCE
from titan.models import qwen2
from titan.models.registry import model_args_from, train_spec
from titanflow.architectures.config_json import read_architecture

# config.json of Qwen/Qwen2.5-<size>, without what is the same in all.
COMMON = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
}
KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "max_position_embeddings", "sliding_window", "max_window_layers", "tie_word_embeddings",
)  # fmt: skip
PUBLISHED = {
    size: {**COMMON, **dict(zip(KEYS, values, strict=True))}
    for size, values in {
        "0.5B": (896, 4864, 24, 14, 2, 151936, 32768, 32768, 24, True),
        "1.5B": (1536, 8960, 28, 12, 2, 151936, 131072, 131072, 28, True),
        "3B": (2048, 11008, 36, 16, 2, 151936, 32768, 32768, 36, True),
        "7B": (3584, 18944, 28, 28, 4, 152064, 131072, 131072, 28, False),
    }.items()
}
PARAMETERS = {"0.5B": 494_032_768, "1.5B": 1_543_714_304, "3B": 3_085_938_688, "7B": 7_615_616_512}
FUNCTION = (*KEYS[:7], "tie_word_embeddings", "hidden_act", "rms_norm_eps", "rope_parameters", "layer_types")
"""What of a config the model's function depends on; without a window its width and layers are nothing."""
TOKENS = SpecialTokens(bos=None, eos=(151643,), pad=None, vocabulary=151665)


def flavor(size):
    return train_spec("qwen2").model_args[size]


def on_meta(size):
    with torch.device("meta"):
        return train_spec("qwen2").model_cls(flavor(size)), Qwen2ForCausalLM(Qwen2Config(**PUBLISHED[size]))


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_flavors_config_is_the_published_one(size):
    args = flavor(size)
    made, published = make_config("qwen2", args, TOKENS, args.max_seq_len), Qwen2Config(**PUBLISHED[size])
    assert {key: getattr(made, key) for key in FUNCTION} == {key: getattr(published, key) for key in FUNCTION}
    assert published.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    assert set(published.layer_types) == {"full_attention"}
    assert made.architectures is None or made.architectures == ["Qwen2ForCausalLM"]


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_published_config_is_the_flavor(size):
    family, found, args = read_architecture(PUBLISHED[size], "config.json")
    assert (family, found) == ("qwen2", size)
    assert model_args_from("qwen2", args) == flavor(size)


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_flavor_has_the_published_number_of_parameters(size):
    native, published = on_meta(size)
    assert native.model_args.get_nparams_and_flops(native, 2048)[0] == PARAMETERS[size]
    assert published.num_parameters() == PARAMETERS[size]


@pytest.mark.parametrize("size", ["0.5B", "7B"])
def test_names_and_shapes_are_the_published_ones(size):
    """Both ways, with no key missing or left over: tied in the one, a weight of its own for the output in the other."""
    native, published = on_meta(size)
    adapter = train_spec("qwen2").state_dict_adapter(flavor(size), None)
    theirs = {key: value.shape for key, value in published.state_dict().items()}
    if flavor(size).enable_weight_tying:
        theirs.pop("lm_head.weight")
    assert {key: value.shape for key, value in adapter.to_hf(native.state_dict()).items()} == theirs
    ours = {key: value.shape for key, value in native.state_dict().items()}
    assert {key: value.shape for key, value in adapter.from_hf(dict(published.state_dict())).items()} == ours


def converted(args, change=None, **config):
    """A sensitised native model, its adapter, transformers' model of the same, and what that lacks.

    ``change`` edits the converted weights, and ``config`` lies over the config: a wrong conversion.
    """
    native, adapter = sensitised("qwen2", args), train_spec("qwen2").state_dict_adapter(args, None)
    right = make_config("qwen2", args, SpecialTokens(None, (0,), None, 260), POSITIONS).to_dict()
    theirs = Qwen2ForCausalLM(Qwen2Config(**{**right, **config})).eval()
    weights = adapter.to_hf(native.state_dict())
    if change:
        weights = {key: value.clone() for key, value in weights.items()}
        change(weights)
    return native, adapter, theirs, theirs.load_state_dict(weights, strict=False)


def relative_error(native, theirs):
    tokens = torch.randint(native.model_args.vocab_size, (2, POSITIONS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = native(tokens), theirs(tokens).logits
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_logits_are_those_of_transformers_both_ways(tied):
    native, adapter, theirs, loaded = converted(tiny_args("qwen2", enable_weight_tying=tied))
    assert loaded.missing_keys == (["lm_head.weight"] if tied else [])
    assert loaded.unexpected_keys == []
    back = adapter.from_hf(dict(theirs.state_dict()))
    assert back.keys() == native.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in native.state_dict().items())
    assert relative_error(native, theirs) < 1e-4


def swapped(first, second):
    """Weights of one name under the other's."""

    def swap(weights):
        for key in [key for key in weights if first in key]:
            other = key.replace(first, second)
            weights[key], weights[other] = weights[other], weights[key]

    return swap


def interleaved(weights):
    """Queries and keys as an adapter leaves them that takes the native RoPE to turn neighbours, as llama3's does."""
    for key, value in weights.items():
        if re.search(r"\.[qk]_proj\.", key):
            weights[key] = value.view(-1, 8, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)


def without_biases(weights):
    for key in weights:
        if key.endswith(".bias"):
            weights[key].zero_()


def turned_biases(weights):
    """The weights right, and the biases alone as for another RoPE."""
    for key, value in weights.items():
        if re.search(r"\.[qk]_proj\.bias", key):
            weights[key] = value.view(-1, 8, 2).transpose(1, 2).reshape(-1)


MUTANTS = {
    "RoPE permuted": {"change": interleaved},
    "norms swapped": {"change": swapped("input_layernorm", "post_attention_layernorm")},
    "gate and up swapped": {"change": swapped("gate_proj", "up_proj")},
    "keys and values swapped": {"change": swapped("k_proj", "v_proj")},
    "no biases": {"change": without_biases},
    "biases of keys and values swapped": {"change": swapped("k_proj.bias", "v_proj.bias")},
    "biases permuted": {"change": turned_biases},
    "another theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "RoPE scaled": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "a window": {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1, "layer_types": None},
    "eps times ten": {"rms_norm_eps": 1e-4},
    "tied": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_conversion_would_be_noticed(mutant):
    args = tiny_args("qwen2", norm_eps=1e-5)
    assert relative_error(*converted(args)[:3:2]) < TOLERANCE / 10
    assert relative_error(*converted(args, **MUTANTS[mutant])[:3:2]) > TOLERANCE


def test_a_weight_that_the_family_lacks_is_refused_by_name():
    adapter = train_spec("qwen2").state_dict_adapter(flavor("debugmodel"), None)
    with pytest.raises(KeyError, match="q_norm"):
        adapter.from_hf({"model.layers.0.self_attn.q_norm.weight": torch.ones(2)})
    with pytest.raises(KeyError, match="lora_a"):
        adapter.to_hf({"layers.0.attention.wq.lora_a": torch.ones(2)})


def test_what_is_drawn_is_small_where_it_is_read_by_all():
    """A tied embedding is drawn as an output layer, biases are 0, and deeper layers add less."""
    torch.manual_seed(0)
    model = train_spec("qwen2").model_cls(flavor("debugmodel"))
    with torch.no_grad():
        model.init_weights()
    assert model.output.weight is model.tok_embeddings.weight
    assert model.tok_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.05)
    stds = [layer.feed_forward.w2.weight.std().item() for layer in model.layers.values()]
    assert stds == sorted(stds, reverse=True)
    assert not any(value.any() for key, value in model.state_dict().items() if key.endswith(".bias"))
    untied = train_spec("qwen2").model_cls(tiny_args("qwen2"))
    with torch.no_grad():
        untied.init_weights()
    assert untied.tok_embeddings.weight.std().item() == pytest.approx(1.0, rel=0.05)


def test_the_readmes_table_is_true():
    readme = (Path(qwen2.__file__).parent / "README.md").read_text()
    cells = [re.findall(r"[^|\s]+", line) for line in readme.splitlines() if line.startswith("|")]
    rows = {first: rest for first, *rest in cells}
    for name, args in train_spec("qwen2").model_args.items():
        with torch.device("meta"):
            parameters, flops = args.get_nparams_and_flops(train_spec("qwen2").model_cls(args), 2048)
        sizes = (args.n_layers, args.dim, args.n_heads, args.n_kv_heads, args.hidden_dim, args.vocab_size)
        tied = "yes" if args.enable_weight_tying else "no"
        numbers = [f"{size:,}" for size in sizes], [f"{args.max_seq_len:,}", f"{parameters:,}"]
        shown = f"{flops:.2e}".replace("e+0", "e").replace("e+", "e")
        assert rows[name] == [*numbers[0], tied, *numbers[1], shown]
