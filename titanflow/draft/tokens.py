"""How many tokens a text takes: measured on a part of it, with a tokenizer as the run will have it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from titanflow.data.tokenizer.tokenizer import TOKENIZER_FILE, train_tokenizer

SAMPLE = 1 << 20
"""Bytes of text to measure with: a tokenizer is trained on them in a second."""
SMALLEST, LARGEST = 512, 32768


def vocabulary(size: int) -> int:
    """A vocabulary for so many bytes of text: the square root, as a power of two, so that each token occurs often."""
    return min(LARGEST, max(SMALLEST, 1 << round(math.log2(max(1, size)) / 2)))


def smaller(vocab_size: int, parameters: int) -> int:
    """A vocabulary whose embedding and head take no more of a small model than in the default experiment's, two fifths
    at a width of 128."""
    while vocab_size > SMALLEST and 2 * 128 * vocab_size > 0.4 * parameters:
        vocab_size //= 2
    return vocab_size


def bytes_a_token(texts: Sequence[str], others: Sequence[str], vocab_size: int, given: Path | None) -> list[float]:
    """Bytes of a token of ``texts``, and of ``others``, by a tokenizer that is trained on ``texts``, or a given one."""
    from tokenizers import Tokenizer

    with TemporaryDirectory() as folder:
        if given is None:
            train_tokenizer(texts, vocab_size, Path(folder))
        tokenizer = Tokenizer.from_file(str((given or Path(folder)) / TOKENIZER_FILE))
    found = []
    for sample in (texts, others):
        tokens = sum(len(one.ids) for one in tokenizer.encode_batch(list(sample), add_special_tokens=False))
        found.append(sum(len(text.encode()) for text in sample) / max(1, tokens) or 1.0)
    return found
