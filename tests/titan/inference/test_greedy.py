from pathlib import Path

import pytest
import torch
from tiny_exports import POSITIONS, write_tiny_export
from transformers import AutoModelForCausalLM, AutoTokenizer

from titan.inference.greedy import continue_greedily, record_greedy


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("model"))


def test_it_is_the_most_likely_token_each_time(export: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    said = record_greedy(model, AutoTokenizer.from_pretrained(export))

    tokens = list(said.prompt)
    with torch.inference_mode():
        for token in said.continuation:
            assert token == int(model(torch.tensor([tokens])).logits[0, -1].argmax())
            tokens.append(token)
    assert len(said.continuation) == 16


def test_it_goes_on_after_an_end_of_text(export: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    said = continue_greedily(model, [5, 6, 7])
    model.generation_config.eos_token_id = said.continuation[:2]

    assert continue_greedily(model, [5, 6, 7]) == said
    assert model.generation_config.eos_token_id == said.continuation[:2]


def test_it_ends_with_the_context(export: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)

    assert len(continue_greedily(model, [5] * (POSITIONS - 3)).continuation) == 3


def test_other_weights_say_something_else(export: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(export), AutoTokenizer.from_pretrained(export)
    said = record_greedy(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)

    assert record_greedy(model, tokenizer).continuation != said.continuation
