"""Tokenizers of each way to split text into words that llama.cpp has a name for, followed by real llama.cpp."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import TEXT
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from watching import PATIENCE

from titan.gguf.llama_cpp import LlamaCpp
from titan.gguf.modelfile import Turns, modelfile
from titan.gguf.proof import compare_texts
from titan.gguf.reference import Reference
from titan.gguf.texts import PIECES, compared_texts, overlaps, own_texts
from titan.gguf.vocabulary import Vocabulary
from titan.gguf.write import write_gguf
from titan.weights.hf_folder import load_tokenizer
from titanflow.common.errors import ConfigError, StageFailed
from titanflow.data.tokenizer.llama_cpp import LLAMA3_WORDS
from titanflow.data.tokenizer.words import QWEN2_WORDS

pytestmark = pytest.mark.slow
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]


def byte_level(regex: str = "", digits: bool = False, **model: Any) -> Tokenizer:
    made = Tokenizer(models.BPE(**model))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(regex), "isolated")] if regex else []
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, as_bytes])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=296, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    return made


def as_llama3() -> Tokenizer:
    made = byte_level(LLAMA3_WORDS, ignore_merges=True)
    made.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[(SPECIAL[1], 1)])
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": byte_level,
    "smollm": lambda: byte_level(digits=True),
    "qwen2": lambda: byte_level(QWEN2_WORDS),
    "llama-bpe": as_llama3,
}


@pytest.fixture
def with_tokenizer(exported: Callable[[str], Path], tmp_path: Path) -> Callable[[Tokenizer], Path]:
    """A copy of an export that has another tokenizer."""

    def copy(tokenizer: Tokenizer) -> Path:
        shutil.copytree(exported("llama"), tmp_path / "export")
        tokenizer.save(str(tmp_path / "export" / "tokenizer.json"))
        return tmp_path / "export"

    return copy


@pytest.mark.parametrize("words", KINDS)
def test_llama_cpp_makes_the_same_tokens(words: str, with_tokenizer: Callable[[Tokenizer], Path]) -> None:
    made = KINDS[words]()
    made.add_tokens(["user_token", "12"])
    folder = with_tokenizer(made)
    write_gguf(folder, folder / "it.gguf", "q8_0", "it")
    read = Vocabulary.read(folder, 300)
    assert (read.words, read.add_bos, read.bos) == (words, words == "llama-bpe", 1 if words == "llama-bpe" else None)
    # control, user-defined, normal and unused tokens
    assert [read.types[number] for number in (0, 296, 4, 299)] == [3, 4, 1, 5]
    tokenizer = load_tokenizer(folder)
    texts = compared_texts(tokenizer, None)[:500]
    reference = Reference(tokenizer, texts, [], [], [], (0,), 64)
    with LlamaCpp(folder / "it.gguf", 64) as runtime:
        assert compare_texts("it.gguf", runtime, reference) == 0
        assert len(runtime.tokenize("", special=True)) == read.add_bos


def test_a_tokenizer_that_llama_cpp_cannot_follow(with_tokenizer: Callable[[Tokenizer], Path]) -> None:
    with pytest.raises(ConfigError, match=r"gguf: export: llama\.cpp has no name for its way to split"):
        Vocabulary.read(with_tokenizer(byte_level(r"\w+|\W")), 300)


def test_added_tokens_that_overlap_are_refused(exported: Callable[[str], Path], with_tokenizer: Any) -> None:
    """Of "abcd" transformers takes the first token and llama.cpp the longest: such a file had passed."""
    made = byte_level()
    made.add_tokens([AddedToken("ab", normalized=False), AddedToken("bcd", normalized=False)])
    folder = with_tokenizer(made)
    tokenizer = load_tokenizer(folder)
    assert set(overlaps(["ab", "bcd", "  ", "   ", "cde"])) == {"abcd", "bcde", "   ", "    ", "     "}
    write_gguf(folder, folder / "it.gguf", "q8_0", "it")
    reference = Reference(tokenizer, compared_texts(tokenizer, None), [], [], [], (0,), 64)
    with LlamaCpp(folder / "it.gguf", 64) as runtime, pytest.raises(StageFailed, match="token on: 'abcd'"):
        compare_texts("it.gguf", runtime, reference)


def test_a_token_that_is_called_as_an_unused_row_is_loaded(with_tokenizer: Any) -> None:
    """llama.cpp ended the process: two rows of the vocabulary had the same text."""
    made = byte_level()
    made.add_tokens(["[PAD299]", "[unused299]"])
    folder = with_tokenizer(made)
    write_gguf(folder, folder / "it.gguf", "q8_0", "it")
    with LlamaCpp(folder / "it.gguf", 64) as runtime:
        assert runtime.tokenize("[PAD299]", special=True) == [296]


def test_a_server_ends_that_was_asked_for_nothing(with_tokenizer: Any) -> None:
    """It hung where it was told to end before its loop began."""
    folder = with_tokenizer(byte_level())
    write_gguf(folder, folder / "it.gguf", "q8_0", "it")
    program = (
        "import sys, pathlib; from titan.gguf.llama_cpp import LlamaCpp\n"
        "for _ in range(40): LlamaCpp(pathlib.Path(sys.argv[1]), 64).__exit__(None, None, None)"
    )
    subprocess.run([sys.executable, "-c", program, folder / "it.gguf"], check=True, timeout=PATIENCE)


def test_more_ends_than_a_file_names(exported: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exported("llama"), tmp_path / "export")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [0, 1, 2, 3]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="4 tokens end a generation, and a GGUF file names 3"):
        Vocabulary.read(folder, 300)


def test_the_texts_are_the_run_s_own_and_built_in_ones(exported: Callable[[str], Path], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(exported("llama"))
    said = np.array(tokenizer.encode("The quick brown fox, again and again. " * 40), dtype=np.uint16)
    np.save(tmp_path / "tokens.npy", said)
    own, texts = own_texts(tokenizer, tmp_path), compared_texts(tokenizer, tmp_path)
    assert len(own) > 5
    assert all("brown fox" in text for text in own)
    assert len(texts) == len(set(texts)) == 1000
    assert {*own, *PIECES} <= set(texts)
    assert any("<|im_end|>" in text for text in texts)
    assert texts == compared_texts(tokenizer, tmp_path)
    assert len(compared_texts(tokenizer, tmp_path / "a mixture's")) == 1000


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GREETING = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"


def rendering(template: str) -> Callable[[list[dict[str, str]], bool], str]:
    from jinja2 import Environment

    compiled = Environment(keep_trailing_newline=True).from_string(template)
    return lambda messages, asks: compiled.render(messages=messages, add_generation_prompt=asks)


def test_a_template_in_the_form_that_ollama_reads() -> None:
    turns = Turns.of(rendering(CHATML))
    assert turns == Turns("<|im_start|>", "\n", "<|im_end|>\n", "<|im_start|>assistant\n")
    assert turns.in_go() == (
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )
    assert Turns.of(rendering(GREETING + CHATML)) is None
    assert Turns.of(rendering("{{ raise() }}")) is None


def test_a_template_that_ollama_s_form_cannot_say(exported: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(exported("llama"))
    tokenizer.chat_template = GREETING + CHATML
    text = modelfile("it-F16.gguf", "it", tokenizer, ["<|im_end|>"], 256, chats=True)
    assert "TEMPLATE" not in text
    assert "# Ollama's form can't say the chat's template" in text
    assert 'TEMPLATE """{{ .Prompt }}"""\n' in modelfile("it-F16.gguf", "it", tokenizer, [], 256, chats=False)
