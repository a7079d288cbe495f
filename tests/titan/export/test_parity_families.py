"""Each family's export computes what the native model does; each wrong conversion of it is caught."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_exports import POSITIONS, QWEN3_EXPERTS, tiny_args, write_byte_tokenizer
from torchtitan.models.moe import MoEArgs
from wrong_exports import MUTANTS, Exported, export_tiny

from titan.export.export import compare
from titan.export.files import SpecialTokens, make_config
from titan.export.parity import GREEDY_TOKENS, TOLERANCE
from titan.models.huggingface import hugging_face_model
from titan.models.registry import train_spec

pytestmark = pytest.mark.slow

DENSE = ("RoPE permuted", "norms swapped", "gate and up swapped", "another theta", "eps times ten")
MIXTURE = ("experts permuted", "scores not normalised")

FAMILIES: dict[str, dict[str, Any]] = {
    "llama3": {},
    "qwen3": {},
    "qwen3-tied": {"enable_weight_tying": True},
    "qwen3-experts": QWEN3_EXPERTS,
    "qwen2": {},
    "qwen2-tied": {"enable_weight_tying": True},
    "deepseek_v3": {},
    # One matrix for the queries, no groups, no YaRN, and each layer a mixture.
    "deepseek_v3-plain": {
        "q_lora_rank": 0,
        "rope_factor": 1.0,
        "n_dense_layers": 0,
        "moe_args": MoEArgs(num_experts=4, top_k=2, score_before_experts=False),
    },
    "deepseek_v3-short": {"original_seq_len": 2 * POSITIONS},
    "llama4": {},
    # RoPE in each layer, unscaled, and each layer a mixture that chooses one expert.
    "llama4-plain": {
        "every_n_layers_nope": None,
        "rope_scaling_args": None,
        "interleave_moe_layer_step": 1,
        "moe_args": MoEArgs(
            num_experts=4, num_shared_experts=1, score_func="sigmoid", top_k=1, load_balance_coeff=None
        ),
    },
}
"""A family, or a variant of it behind a dash, and what is changed of its tiny arguments."""

WRONG: dict[str, tuple[str, ...]] = {
    "llama3": (*DENSE, "RoPE scaling dropped"),
    "qwen3": DENSE,
    "qwen2": DENSE,
    "qwen3-experts": (*DENSE, *MIXTURE),
    "llama4": (
        *DENSE,
        *("RoPE scaling dropped", "RoPE in each layer", "queries and keys normed"),
        *("joined experts permuted", "one expert chosen"),
    ),
    "deepseek_v3": (
        "RoPE of halves",
        *DENSE[1:],
        *MIXTURE,
        "RoPE scaling dropped",
        "softmax scale of YaRN dropped",
        "correction bias dropped",
        "experts chosen among all",
        "scores not scaled",
    ),
}
"""What may go wrong with each."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("families")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    return {name: export_tiny(folder, name, changes, tokenizer) for name, changes in FAMILIES.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_right_export_passes(exports: dict[str, Exported], name: str) -> None:
    exported = exports[name]

    parity = compare(exported.native, exported.adapter, exported.folder)

    assert parity.failures() == []
    assert parity.relative_error < 5e-5
    assert (parity.positions, parity.greedy_tokens) == (POSITIONS, GREEDY_TOKENS)
    assert parity.changed_tensors == parity.missing == parity.unexpected == ()


@pytest.mark.parametrize(("name", "mutant"), [(name, mutant) for name, mutants in WRONG.items() for mutant in mutants])
def test_a_wrong_export_is_caught(exports: dict[str, Exported], tmp_path: Path, name: str, mutant: str) -> None:
    exported = exports[name]
    folder = exported.copy(tmp_path / "mutant", MUTANTS[mutant])

    parity = compare(exported.native, exported.adapter, folder)

    assert parity.relative_error > 5 * TOLERANCE
    assert any("relative error is" in failure for failure in parity.failures())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_saves_comes_back_to_the_bit(tmp_path: Path, name: str) -> None:
    """A model of transformers' own, by the names that it writes, through the adapter there and back."""
    family = name.partition("-")[0]
    args = tiny_args(family, **FAMILIES[name])
    tokens = SpecialTokens(bos=None, eos=(0,), pad=None, vocabulary=args.vocab_size)
    config = make_config(family, args, tokens, POSITIONS)
    model = hugging_face_model(family, args).model_class()(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_()
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    spec = train_spec(family)
    adapter = spec.state_dict_adapter(args, None)

    native = spec.model_cls(args)
    native.load_state_dict(adapter.from_hf(dict(saved)))
    back = adapter.to_hf(native.state_dict())

    assert back.keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in back.items())
