import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_exports import save_checkpoint, sensitised, tiny_args, write_byte_tokenizer
from tiny_hugging_face import write_hugging_face

from titan.models.registry import model_args_from, train_spec
from titan.weights.adapters import load_weights
from titan.weights.grown_weights import with_mean_rows
from titan.weights.stage_model import named_weights
from titanflow.architectures.families.registry import ARCHITECTURES
from titanflow.architectures.outside_base import read_base
from titanflow.common.errors import ConfigError
from titanflow.data.tokenizer.tokenizer import add_special_tokens
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

TOKENS = ["<|tool_call|>", "<|tool_end|>"]
TRAINED = {"training": {"steps": 1, "mock_data": True}, "optimizer": {"lr": 0.0}, "lr_scheduler": {"warmup_steps": 0}}


def test_new_rows_are_the_mean_of_the_old() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert with_mean_rows(rows, 4).tolist() == [[1, 2], [3, 6], [2, 4], [2, 4]]
    assert torch.equal(with_mean_rows(rows, 2), rows)
    # In half precision the sum of many rows would round.
    many = torch.ones(4096, 1, dtype=torch.bfloat16)
    assert with_mean_rows(many, 4097)[-1].item() == 1.0


def loaded(path: Path, family: str, args: Any, rows: int) -> Any:
    """A model of ``rows`` tokens, loaded as the trainer does it."""
    spec = train_spec(family)
    args = dataclasses.replace(args, vocab_size=rows)
    model = spec.model_cls(args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    load_weights([model], named_weights(path), spec.state_dict_adapter(args, None), grows=True)
    return model.eval()


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama3", {}),
        ("qwen3", {}),
        ("qwen3", {"enable_weight_tying": True}),
        ("qwen2", {}),
        ("qwen2", {"enable_weight_tying": True}),
    ],
    ids=["llama3", "qwen3", "qwen3, tied", "qwen2", "qwen2, tied"],
)
@pytest.mark.parametrize("rows", [300, 303])
def test_the_old_tokens_mean_what_they_did(tmp_path: Path, family: str, changes: dict, rows: int) -> None:
    args = tiny_args(family, **changes)
    model = sensitised(family, args)
    found = loaded(save_checkpoint(model, tmp_path / "step-1"), family, args, rows)
    tokens = torch.randint(300, (1, 32))
    with torch.inference_mode():
        torch.testing.assert_close(found(tokens)[..., :300], model(tokens))
    mean = model.tok_embeddings.weight.mean(0)
    for row in found.tok_embeddings.weight[300:]:
        torch.testing.assert_close(row, mean)
    if changes:
        assert found.output.weight is found.tok_embeddings.weight


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_from_transformers_format_too(tmp_path: Path, family: str, tied: bool) -> None:
    model = write_hugging_face(tmp_path / "base", ARCHITECTURES[family], tie_word_embeddings=tied)
    base = read_base(tmp_path / "base")
    found = loaded(tmp_path / "base", family, model_args_from(family, base.model_args), 303)
    tokens = torch.randint(300, (1, 32))
    with torch.inference_mode():
        torch.testing.assert_close(found(tokens)[..., :300], model(tokens).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.output.weight[302], model.lm_head.weight.mean(0))


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(sensitised("llama3", tiny_args("llama3")), tmp_path / "step-1")
    with pytest.raises(ConfigError, match="the checkpoint isn't this model's"):
        loaded(path, "llama3", tiny_args("llama3", n_layers=2), 303)


def extended(folder: Path) -> Path:
    write_byte_tokenizer(folder)
    add_special_tokens(folder, TOKENS)
    return folder


def test_a_stage_grows_and_its_export_has_the_tokens(bench, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_hugging_face(tmp_path / "base", "LlamaForCausalLM", vocab_size=260)
    run = bench.stage(
        "sft",
        TRAINED,
        {"tokenizer": {"new_special_tokens": TOKENS}},
        stage="sft",
        base=tmp_path / "base",
        tokenizer=extended(tmp_path / "tokenizer"),
        model_overrides={},
    )
    # Sharded over two ranks, and at a learning rate of nothing.
    assert bench.run(run, ranks=2) == 0, (run.folder / "log.txt").read_text()
    result = read_result(run.folder)
    assert result.model_args["vocab_size"] == 262
    (grown,) = (row for row in result.inheritance if row.key == "model.vocab_size")
    assert str(grown) == f"Changed model.vocab_size: 260 → 262, with {', '.join(TOKENS)}"
    given = load_file(tmp_path / "base" / "model.safetensors")
    exported = load_file(result.export / "model.safetensors")
    for key, value in given.items():
        assert torch.equal(exported[key][: len(value)], value)
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        torch.testing.assert_close(exported[key][260:], given[key].mean(0).expand(2, -1))
    assert json.loads((result.export / "config.json").read_text())["vocab_size"] == 262
    tokenizer = AutoTokenizer.from_pretrained(result.export)
    assert tokenizer.encode("a" + TOKENS[1], add_special_tokens=False)[-1] == 261
    assert set(TOKENS) <= set(tokenizer.all_special_tokens)
