"""The tokenizer: a byte-level BPE trained on the pretraining text, or a folder that the user gives.

Either way ``transformers.AutoTokenizer.from_pretrained`` and torchtitan's ``build_hf_tokenizer`` can load the folder.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.architectures.base import TOKENIZER_FILE
from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.config.files.chat_template import CHATML, TEMPLATE_FILE, template_text
from titanflow.data.tokenizer.text_encoder import TextEncoder
from titanflow.data.tokenizer.words import QWEN2, part_words_as_qwen2

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN, PAD)
"""A trained tokenizer reserves these, with ids 0 to 3, so that pretraining and fine-tuning share one vocabulary."""

CONFIG_FILE = "tokenizer_config.json"
GIVEN_FILES = (
    *(TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE, "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model"),
)
"""The files that a tokenizer may consist of."""
_SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
# Texts handed to the trainer at a time: fewer mean more calls, more take more memory.
_TRAINING_BATCH = 256


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer folder, loaded for encoding text as ``transformers.AutoTokenizer`` does.

    ``backend`` encodes the text of a special token as plain text; ``text`` does so with pieces of a text. ``special``
    has the control tokens and ids by their text, ``variables`` a chat template's variables (``eos_token`` and so on).
    """

    folder: Path
    backend: Tokenizer
    text: TextEncoder
    special: dict[str, tuple[int, AddedToken]]
    variables: dict[str, str]
    end_of_text_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """The tokens of ``text`` alone: nothing is added before or after it."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self.backend.decode(ids, skip_special_tokens=False))

    @property
    def special_ids(self) -> set[int]:
        return {number for number, _ in self.special.values()}


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path, words: str = "") -> None:
    """Trains a byte-level BPE of ``vocab_size`` tokens (special ones included) and writes it into ``folder``.

    The same texts in the same order give the same bytes. Short texts may give fewer tokens than asked for.
    ``words`` says how text is split into words: as Qwen2 does (:data:`QWEN2`), or as GPT-2 does (empty).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if words == QWEN2:
        part_words_as_qwen2(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
    }
    (folder / TEMPLATE_FILE).write_text(template_text(CHATML), encoding="utf-8")
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_vocab_size(vocab_size: int) -> None:
    """Refuses a vocabulary without room for all 256 bytes and the special tokens."""
    if vocab_size < _SMALLEST_VOCABULARY:
        expected = f"at least {_SMALLEST_VOCABULARY}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens"
        raise DataError(Problem(f"a vocabulary of {vocab_size} is too small", "tokenizer.vocab_size", "", expected))


def check_tokenizer(path: Path | str, key: str = "tokenizer.path") -> Path:
    """A given tokenizer's folder, checked without loading it.

    Raises:
        DataError: the folder or one of the two files that every loader needs is missing, or its config is broken.
    """
    folder = expanded(path)
    missing = [name for name in (TOKENIZER_FILE, CONFIG_FILE) if not (folder / name).is_file()]
    if not folder.is_dir():
        found = f"{path} isn't there" + ("" if folder.is_absolute() else f" (looked for it in {Path.cwd()})")
    elif missing:
        found = f"{path} lacks {' and '.join(missing)}"
    elif broken := _broken_config(folder):
        found = f"{path}: {CONFIG_FILE} {broken}"
    else:
        return folder
    hint = "save one with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(folder)"
    raise DataError(Problem(found, key, expected=f"a folder with {TOKENIZER_FILE} and {CONFIG_FILE}", hint=hint))


def _broken_config(folder: Path) -> str:
    """The fault of the config file, which is small enough to be read in a plan; empty if there is none."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"can't be read: {error}"
    return "" if isinstance(config, dict) else "is no mapping"


def described_size(folder: Path) -> int:
    """The highest token id in ``tokenizer.json`` plus one, read without loading it; 0 without tokens."""
    described = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    vocabulary = (described.get("model") or {}).get("vocab") or {}
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    added = (token["id"] for token in described.get("added_tokens") or [] if "id" in token)
    return max((*ids, *added), default=-1) + 1


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer's folder that are the tokenizer's."""
    return [folder / name for name in GIVEN_FILES if (folder / name).is_file()]


def add_special_tokens(folder: Path, tokens: list[str]) -> None:
    """Appends control tokens to the vocabulary of the tokenizer in ``folder``; refuses those that it has."""
    if not tokens:
        return
    from tokenizers import AddedToken

    tokenizer = described_tokenizer(folder)
    known = [token for token in tokens if tokenizer.token_to_id(token) is not None]
    if known:
        found = f"the base's tokenizer has {', '.join(known)} already"
        raise DataError(Problem(found, "tokenizer.new_special_tokens", hint="leave out what it has"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.save(str(folder / TOKENIZER_FILE))
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # transformers 5 has a new name for the list, and writes and reads it in place of the old one.
    new = "extra_special_tokens"
    key = new if isinstance(config.get(new), list) else "additional_special_tokens"
    config[key] = [*config.get(key, []), *tokens]
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        decoder |= {str(tokenizer.token_to_id(token)): {"content": token, **plain} for token in tokens}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def described_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer as its ``tokenizer.json`` describes it, which is enough for decoding.

    Raises:
        DataError: the file can't be read.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain Exception
        hint = f"remove the folder {folder} if a run made it: the next run makes it again"
        raise DataError(Problem(f"can't be read: {error}", origin=str(path), hint=hint)) from error


def inference_tokenizer(folder: Path) -> Any:
    """The tokenizer as ``AutoTokenizer`` loads it without its model: transformers rebuilds some from their class."""
    from transformers import AutoTokenizer, PreTrainedConfig

    return AutoTokenizer.from_pretrained(
        folder, config=PreTrainedConfig(), local_files_only=True, trust_remote_code=False
    )


def load_tokenizer(folder: Path | str, key: str = "tokenizer.path") -> LoadedTokenizer:
    """Loads a tokenizer folder for encoding.

    Raises:
        DataError: files are missing or broken, or it has no end of text (``eos_token``).
    """
    folder = check_tokenizer(folder, key)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        variables = {name: text for name in config if name.endswith("_token") if (text := _text(config[name]))}
        loaded = inference_tokenizer(folder)
        backend = loaded.backend_tokenizer
        variables |= loaded.special_tokens_map
    except Exception as error:  # the Rust library raises plain Exception
        raise DataError(Problem(f"{folder} can't be loaded: {error}", key)) from error
    _refuse_more_tokens(backend, config, folder, key)
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    end_of_text = backend.token_to_id(variables.get("eos_token", ""))
    if end_of_text is None:
        expected, hint = "eos_token: a token of the vocabulary", "documents are separated by it"
        raise DataError(Problem("the tokenizer names no end of text", key, str(folder / CONFIG_FILE), expected, hint))
    pad = backend.token_to_id(variables.get("pad_token", ""))
    added = backend.get_added_tokens_decoder()
    return LoadedTokenizer(
        folder=folder,
        backend=backend,
        text=TextEncoder(backend),
        special={token.content: (number, token) for number, token in added.items() if token.special},
        variables=variables,
        end_of_text_id=end_of_text,
        pad_id=end_of_text if pad is None else pad,
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
    )


def _refuse_more_tokens(backend: Tokenizer, config: dict[str, Any], folder: Path, key: str) -> None:
    """Refuses tokens that only the config names: transformers adds them, and the model may have no embedding for them.

    Tokens that a class of transformers adds by itself (Gemma's ``<mask>``) are let pass: no text has them on purpose.
    """
    lists = (config.get(name) for name in ("extra_special_tokens", "additional_special_tokens"))
    values = [*config.values(), *itertools.chain.from_iterable(one for one in lists if isinstance(one, list))]
    named, size = {_text(value) for value in values}, described_size(folder)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if more := [token for token in named & vocabulary.keys() if vocabulary[token] >= size]:
        found = f"it names {', '.join(sorted(more))}, and {TOKENIZER_FILE} has no such token"
        hint = (
            "transformers adds what is missing behind the vocabulary: take the name out, or give the tokenizer the "
            "token (AutoTokenizer.from_pretrained(…).save_pretrained(folder)) and the model an embedding for it"
        )
        raise DataError(Problem(found, key, str(folder / CONFIG_FILE), "tokens of the vocabulary", hint))


def _text(value: Any) -> str:
    # transformers writes a special token as a text, or as a dict with the text in "content".
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(itertools.islice(rest, _TRAINING_BATCH)):
        yield batch
