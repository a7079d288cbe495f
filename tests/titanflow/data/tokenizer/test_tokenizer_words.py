"""A trained tokenizer gives the same tokens once transformers has loaded it with a model."""

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2Config
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from titan.export.files import check_tokenizer
from titanflow.common.errors import DataError, StageFailed
from titanflow.data.tokenizer.checks import check_words
from titanflow.data.tokenizer.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from titanflow.data.tokenizer.words import PROBE, QWEN2, QWEN2_WORDS

SOURCE = Path(os.__file__).read_text(encoding="utf-8")


def trained(folder: Path, words: str) -> Path:
    """A tokenizer trained on a module's source, beside the config of a qwen2 model."""
    train_tokenizer(SOURCE.split("\n\n"), 700, folder, words)
    Qwen2Config(num_hidden_layers=1, hidden_size=8, num_attention_heads=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def as_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("qwen2"), QWEN2)


@pytest.fixture(scope="module")
def as_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("gpt2"), "")


def test_the_words_are_those_of_transformers() -> None:
    assert QWEN2_WORDS == PRETOKENIZE_REGEX


@pytest.mark.parametrize("text", [PROBE, SOURCE, f"{SPECIAL_TOKENS[1]}user\n10 + 1'll{SPECIAL_TOKENS[2]}\n", "", " "])
def test_transformers_loads_what_was_trained(as_qwen2: Path, text: str) -> None:
    described = Tokenizer.from_file(str(as_qwen2 / "tokenizer.json"))
    loaded = AutoTokenizer.from_pretrained(as_qwen2)
    assert loaded.encode(text, add_special_tokens=False) == described.encode(text, add_special_tokens=False).ids
    assert (loaded.eos_token, loaded.pad_token) == (SPECIAL_TOKENS[0], SPECIAL_TOKENS[3])
    check_tokenizer(as_qwen2, load_tokenizer(as_qwen2))
    check_words(as_qwen2)


def test_other_words_are_refused_before_training_and_as_it_is_exported(as_gpt2: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.path: its words aren't Qwen2's"):
        check_words(as_gpt2)
    with pytest.raises(StageFailed, match="loads the tokenizer as Qwen2Tokenizer, which encodes otherwise"):
        check_tokenizer(as_gpt2, load_tokenizer(as_gpt2))


def test_a_model_of_another_kind_may_have_them(as_gpt2: Path, tmp_path: Path) -> None:
    for path in as_gpt2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    check_tokenizer(tmp_path, load_tokenizer(as_gpt2))


def test_an_export_is_held_against_the_tokenizer_that_trained(as_qwen2: Path, tmp_path: Path) -> None:
    """Its own copy agrees with itself, whatever became of it."""
    train_tokenizer(SOURCE.split("\n\n"), 500, tmp_path, QWEN2)
    check_tokenizer(tmp_path, load_tokenizer(tmp_path))
    with pytest.raises(StageFailed, match="which encodes otherwise than the one that the model was trained with"):
        check_tokenizer(tmp_path, load_tokenizer(as_qwen2))
