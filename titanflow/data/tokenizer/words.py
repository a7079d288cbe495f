"""How a tokenizer splits text into words; for some models transformers ignores the file's own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN2 = "qwen2"
"""The name of Qwen2's way to split text into words; the only other way here is ``ByteLevel``'s own, GPT-2's."""
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of words in the ``tokenizer.json`` of Qwen2."""
PROBE = "def f(x1):\n    return x1 + 2024  # it's\n\n\n\tJETZT geht's los: größer, naïve, 東京 10:30!\r\n  End.  "
"""Text that each way splits differently."""


def part_words_as_qwen2(tokenizer: Tokenizer) -> None:
    """Makes a tokenizer split text as Qwen2's does.

    transformers loads the tokenizer of any ``qwen2`` model as ``Qwen2Tokenizer``, which splits text like this whatever
    ``tokenizer.json`` says (5.23, ``MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS``).
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated", invert=False)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
