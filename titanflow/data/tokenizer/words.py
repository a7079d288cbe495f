"""How a tokenizer parts text into words: for some models transformers decides it, whatever its file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN2 = "qwen2"
"""The one way to part text into words, of two, that has a name: Qwen2's. The other is ``ByteLevel``'s own, GPT-2's."""
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The words of Qwen2's tokenizer, as its ``tokenizer.json`` has them."""
PROBE = "def f(x1):\n    return x1 + 2024  # it's\n\n\n\tJETZT geht's los: größer, naïve, 東京 10:30!\r\n  End.  "
"""Text that ways to part words part differently."""


def part_words_as_qwen2(tokenizer: Tokenizer) -> None:
    """Gives a tokenizer Qwen2's words.

    transformers loads the tokenizer of any ``qwen2`` model as ``Qwen2Tokenizer``, which parts text like this whatever
    ``tokenizer.json`` says (5.23, ``MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS``).
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated", invert=False)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
