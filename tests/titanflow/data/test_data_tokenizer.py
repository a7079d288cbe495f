from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from titanflow.common.digests import folder_digests
from titanflow.common.errors import DataError
from titanflow.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    LoadedTokenizer,
    add_special_tokens,
    check_tokenizer,
    load_tokenizer,
    tokenizer_files,
    train_tokenizer,
)


def test_the_same_text_gives_the_same_bytes_in_every_process(
    tokenizer_folder: Path, tmp_path: Path, texts: list[str]
) -> None:
    code = (
        "import json, sys; from pathlib import Path; from titanflow.data.tokenizer.tokenizer import train_tokenizer; "
        "train_tokenizer(json.load(sys.stdin), 400, Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, input=json.dumps(texts), text=True, check=True, env=environment)
    assert folder_digests(tmp_path) == folder_digests(tokenizer_folder)


def test_special_tokens_come_first_and_the_vocabulary_is_full(tokenizer: LoadedTokenizer) -> None:
    assert [tokenizer.special[token][0] for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert (tokenizer.end_of_text_id, tokenizer.pad_id) == (0, 3)
    assert tokenizer.vocab_size == 400


def test_a_short_text_gives_fewer_tokens(tmp_path: Path) -> None:
    train_tokenizer(["ab"], 400, tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == 261


@pytest.mark.parametrize(
    "text",
    ["def read(path):\n    return 1\n", "\x00\x01 control\t\r\n", "日本 𝒳 \U0010ffff", "  spaces   ", "<|im_end|>"],
)
def test_text_comes_back_byte_for_byte(tokenizer: LoadedTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.backend.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & {0, 1, 2, 3}


def test_transformers_loads_the_folder(tokenizer_folder: Path, tokenizer: LoadedTokenizer, texts: list[str]) -> None:
    loaded = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.bos_token_id) == (0, 3, None)
    assert loaded(texts[1])["input_ids"] == tokenizer.encode(texts[1])
    prompt = loaded.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_torchtitan_loads_the_folder(tokenizer_folder: Path, tokenizer: LoadedTokenizer) -> None:
    # In a process of its own: data preparation must never need torch.
    code = (
        "import sys, json; from torchtitan.components.tokenizer import HuggingFaceTokenizer as T; t = T(sys.argv[1]); "
        "print(json.dumps([t.eos_id, t.get_vocab_size(), t.encode('def read', add_bos=False, add_eos=False)]))"
    )
    command = [sys.executable, "-c", code, str(tokenizer_folder)]
    found = json.loads(subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines()[-1])
    assert found == [0, 400, tokenizer.encode("def read")]


def test_a_vocabulary_without_room_is_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"tokenizer.vocab_size: a vocabulary of 259 is too small[\s\S]*260"):
        train_tokenizer(texts, 259, tmp_path)
    train_tokenizer(texts, 260, tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == 260


def test_a_given_folder_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer.path: .*nowhere isn't there"):
        check_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"lacks tokenizer_config\.json[\s\S]*save_pretrained"):
        check_tokenizer(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match="can't be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_of_text_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: tokenizer.path: .*no end of text"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
def test_a_token_that_only_the_config_names_is_refused(tokenizer_folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    config = {"eos_token": "<|im_end|>", name: "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"tokenizer_config\.json: tokenizer.path: it names </s>, and tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_of_a_folder_only_the_tokenizers_files_count(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert {file.name for file in tokenizer_files(tmp_path)} == {file.name for file in tokenizer_folder.iterdir()}


def test_special_tokens_may_be_written_as_mappings(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    config = {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True}, "unk_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_tokenizer(tmp_path)
    assert (loaded.end_of_text_id, loaded.pad_id) == (2, 2)


def test_special_tokens_are_added_behind_all_others(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tokenizer_folder, folder)
    before = load_tokenizer(folder)
    add_special_tokens(folder, [])
    assert (folder / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()
    add_special_tokens(folder, ["<|x|>", "<|y|>"])
    after = load_tokenizer(folder)
    assert after.vocab_size == before.vocab_size + 2
    assert [after.special[token][0] for token in ("<|x|>", "<|y|>")] == [before.vocab_size, before.vocab_size + 1]
    assert after.encode("plain text <|x|>") == before.encode("plain text <|x|>")
    with pytest.raises(DataError, match=r"has <\|y\|> already"):
        add_special_tokens(folder, ["<|z|>", "<|y|>"])
