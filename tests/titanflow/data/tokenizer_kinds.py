"""A small tokenizer of each kind that the ``tokenizers`` library knows, in folders as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.\nIt was user and assistant of nobody, of system and tool.\n" * 3,
    "Is json.JSONDecodeError a class or a function?\nA class. Which module defines it? json.decoder\n" * 4,
    "Größe, naïve, Be brief and kind! (1) 2024; [a] {b} 'c' \"d\"\n" * 3,
]
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
LLAMA = {"llama": {"tokenizer_class": "LlamaTokenizer", "legacy": False}}
LLAMA |= {"llama-legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": True}}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
_TRAINED = {"vocab_size": 700, "special_tokens": list(SPECIAL), "show_progress": False}


def metaspace(scheme: str, split: bool = True) -> Any:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=split)


def bpe(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    """A BPE over bytes or, where no byte level stands before it, over characters with bytes for the unknown ones."""
    is_byte_level = isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
    over_characters = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    found = Tokenizer(models.BPE(**({} if is_byte_level else over_characters)))
    found.normalizer, found.pre_tokenizer = normalizer, pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if is_byte_level else ["▁", "\n"]
    found.decoder = decoders.ByteLevel() if is_byte_level else _llama_decoder()
    found.train_from_iterator(TEXTS, trainers.BpeTrainer(initial_alphabet=alphabet, **_TRAINED))
    return found


def sentencepiece(kind: str) -> Tokenizer:
    """As Llama 2's: no pre-tokenizer parts its words; ``legacy`` prepends by its normalizer, ``first`` doesn't."""
    made = bpe(metaspace("first"))
    if kind == "legacy":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        described = json.loads(made.to_str()) | {"pre_tokenizer": None}
        return Tokenizer.from_str(json.dumps(described))
    made.pre_tokenizer = metaspace(kind, split=False)
    return made


def unigram(pre_tokenizer: Any) -> Tokenizer:
    found = Tokenizer(models.Unigram())
    found.pre_tokenizer, found.decoder = pre_tokenizer, decoders.Metaspace()
    alphabet = sorted(set("".join(TEXTS)))
    found.train_from_iterator(TEXTS, trainers.UnigramTrainer(unk_token="<unk>", initial_alphabet=alphabet, **_TRAINED))
    return found


def wordpiece(normalizer: Any) -> Tokenizer:
    found = Tokenizer(models.WordPiece(unk_token="<unk>"))
    found.normalizer, found.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    found.decoder = decoders.WordPiece()
    found.train_from_iterator(TEXTS, trainers.WordPieceTrainer(**_TRAINED))
    return found


def _llama_decoder() -> Any:
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return decoders.Sequence(parts)


def _byte_level(prefix: bool, normalizer: Any = None) -> Tokenizer:
    return bpe(pre_tokenizers.ByteLevel(add_prefix_space=prefix), normalizer)


KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    **{
        f"{kind}-{name}": (lambda kind=kind: sentencepiece(kind), config)  # type: ignore[misc]
        for kind in ("first", "legacy")
        for name, config in {"fast": FAST, **LLAMA}.items()
    },
    **{
        f"bpe metaspace {scheme}{' whole' * (not split)}": (
            lambda scheme=scheme, split=split: bpe(metaspace(scheme, split)),  # type: ignore[misc]
            FAST,
        )
        for scheme in ("first", "always", "never")
        for split in (True, False)
    },
    **{
        f"unigram metaspace {scheme}": (lambda scheme=scheme: unigram(metaspace(scheme)), FAST)  # type: ignore[misc]
        for scheme in ("first", "always", "never")
    },
    "unigram words with metaspace": (
        lambda: unigram(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace("always")])),
        FAST,
    ),
    "bytes": (lambda: _byte_level(False), FAST),
    "bytes with a prefix space": (lambda: _byte_level(True), FAST),
    "bytes of lower case": (lambda: _byte_level(False, normalizers.Lowercase()), FAST),
    "bytes composed": (lambda: _byte_level(False, normalizers.NFC()), FAST),
    "bytes compatibly composed": (lambda: _byte_level(False, normalizers.NFKC()), FAST),
    "bytes without accents": (
        lambda: _byte_level(
            False, normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
        ),
        FAST,
    ),
    "bytes as GPT-2": (lambda: _byte_level(False), {"tokenizer_class": "GPT2Tokenizer"}),
    "bytes as GPT-2 with a prefix space": (
        lambda: _byte_level(True),
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
    ),
    "bytes as Qwen2": (lambda: _byte_level(False), {"tokenizer_class": "Qwen2Tokenizer"}),
    "bytes as Llama": (lambda: _byte_level(False), LLAMA["llama"]),
    "bytes with a beginning": (lambda: _byte_level(False), {**FAST, "add_bos_token": True}),
    "first as Gemma": (lambda: sentencepiece("first"), {"tokenizer_class": "GemmaTokenizer"}),
    "bytes stripped left": (lambda: _byte_level(False, normalizers.Strip(left=True, right=False)), FAST),
    "bytes stripped": (lambda: _byte_level(False, normalizers.Strip()), FAST),
    "wordpiece": (lambda: wordpiece(None), FAST),
    "wordpiece of lower case": (lambda: wordpiece(normalizers.BertNormalizer(lowercase=True)), FAST),
    "wordpiece stripped": (lambda: wordpiece(normalizers.Strip()), FAST),
}
"""Name → what makes the tokenizer, and its ``tokenizer_config.json``. The first six are SentencePiece's conversions."""


def write_kind(name: str, folder: Path) -> Path:
    """The folder of a tokenizer of this kind."""
    make, config = KINDS[name]
    tokenizer = make()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | named))
    return folder
