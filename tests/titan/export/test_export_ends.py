"""Generation from an export stops at each token that ended a trained turn, and at no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_exports import model_at, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer
from transformers import AutoModelForCausalLM, LogitsProcessor

from titan.export.export import export_model
from titanflow.data.tokenizer.tokenizer import add_special_tokens

ADDED = ["<|end|>", "<|call|>", "<|other|>"]


class Says(LogitsProcessor):
    """Makes these tokens the likeliest, one after another."""

    def __init__(self, tokens: list[int], prompt: int) -> None:
        self.tokens, self.prompt = tokens, prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        likeliest = torch.full_like(scores, -1e9)
        likeliest[:, self.tokens[input_ids.shape[1] - self.prompt]] = 0
        return likeliest


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, int]]:
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("ends")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    add_special_tokens(tokenizer, ADDED)
    ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab()
    args = tiny_args("llama3")
    checkpoint = save_checkpoint(sensitised("llama3", args), folder / "step-1")
    ends = (ids["<|call|>"], ids["<|end|>"])
    report = export_model(model_at(checkpoint, "llama3", args, tokenizer, end_of_turn=ends), folder / "out")
    return AutoModelForCausalLM.from_pretrained(report.folder), ids


@pytest.mark.parametrize(
    ("token", "stops"),
    # The tokenizer's <|im_end|> ended no turn that was trained: it may stand within one.
    [("<|end|>", True), ("<|call|>", True), ("<|endoftext|>", True), ("<|im_end|>", False), ("<|other|>", False)],
)
def test_it_stops_there(exported: tuple[Any, dict[str, int]], token: str, stops: bool) -> None:
    model, ids = exported
    said = [ids["a"], ids["b"], ids[token], ids["c"], ids["d"]]
    prompt = torch.tensor([[ids["q"], ids["?"]]])
    written = model.generate(prompt, max_new_tokens=5, logits_processor=[Says(said, 2)])[0, 2:].tolist()
    assert written == (said[:3] if stops else said)
