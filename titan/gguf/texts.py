"""The texts on which llama.cpp's tokens are compared with transformers' own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from titanflow.data.prepared import TOKENS_FILE, mapped

COUNT = 1000
"""Texts that are compared."""
FROM_ROWS = 500
"""How many of them come from the run's own rows at most."""
ROW_TOKENS = 64
PIECES = (
    *(
        "hello",
        "World",
        "naïve",
        "größer",
        "Straße",
        "ÇA",
        "ŁÓDŹ",
        "ﬁne",
        "x",
        "I",
        "it's",
        "I'LL",
        "we'Ve",
        "'s",
        "'t",
    ),
    *(
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        " \n ",
        "\n\t\t",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\u200b",
        "\x0b\x0c",
    ),
    *("7", "42", "123", "2024", "1234567", "3.14", "1,000", "0x1F", "½", "²", "Ⅷ", "٣٤٥", "１２３", "10:30"),
    *(
        "!",
        "?!",
        "...",
        "…",
        "«»",
        "--",
        "—",
        "$5",
        "€",
        "#tag",
        "@me",
        "a_b",
        "<|",
        "|>",
        "<>",
        "{}[]()",
        "\\n",
        "\\",
        '"',
    ),
    *("東京", "日本語のテキスト", "漢字。", "你好，世界！", "한국어", "안녕하세요", "カタカナ", "ひらがな"),
    *("😀", "👍🏽", "👩‍👩‍👧", "🇩🇪", "☃️", "❤", "1️⃣", "🏳️‍🌈"),
    *(
        "e\u0301",
        "n\u0303",
        "a\u0308o\u0302",
        "Z\u0335\u0351",
        "हिन्दी",
        "ไทย",
        "வணக்கம்",
        "שָׁלוֹם",
        "مرحبا",
        "Привет",
        "Ελλάδα",
    ),
    *(
        "def f(x):\n    return x1 + 2",
        "https://a.b/c?d=1&e=%20",
        "CamelCaseWord",
        "snake_case",
        "a*b**c",
        "&amp;",
        "<br/>",
    ),
    *("\x01", "\x7f", "\ufeff", "\ufffd", "\u202e", "\u2028", "𝔘𝔫𝔦", "𓀀", "ǅ", "ß", "İ", "ſ"),
)
"""Scripts, digits, runs of blanks, marks and signs that tokenizers are known to split in different ways."""


def compared_texts(tokenizer: Any, rows: Path | None) -> list[str]:
    """The run's own texts and built-in ones, all different; the same each time.

    Args:
        tokenizer: transformers' own. Texts with its special tokens spelled out are among them.
        rows: a folder of prepared rows, or None. A mixture's folder holds no tokens itself.
    """
    own = own_texts(tokenizer, rows) if rows is not None and (rows / TOKENS_FILE).is_file() else []
    texts = dict.fromkeys([*own, *PIECES, *overlaps(tokenizer.get_added_vocab())])
    pieces = [*PIECES, *tokenizer.get_added_vocab()]
    draw = random.Random(0)
    while len(texts) < COUNT:
        joint = draw.choice(("", "", " ", "\n"))
        texts[joint.join(draw.choice(pieces) for _ in range(draw.randint(2, 9)))] = None
    return list(texts)


def overlaps(added: Iterable[str]) -> Iterator[str]:
    """Texts where an added token ends after another has begun: transformers takes the first, llama.cpp the longest."""
    begins: dict[str, list[str]] = {}
    for token in added:
        for length in range(1, len(token)):
            begins.setdefault(token[:length], []).append(token)
    for token in added:
        for start in range(1, len(token)):
            for other in begins.get(token[start:], ()):
                yield token[:start] + other


def own_texts(tokenizer: Any, rows: Path) -> list[str]:
    """Pieces of the prepared rows, evenly spread; special tokens stand in them as text."""
    tokens = mapped(rows, TOKENS_FILE)
    starts = np.linspace(0, max(0, len(tokens) - ROW_TOKENS), min(FROM_ROWS, 1 + len(tokens) // ROW_TOKENS), dtype=int)
    pieces = [tokens[start : start + ROW_TOKENS].tolist() for start in starts]
    return [text for text in tokenizer.batch_decode(pieces, skip_special_tokens=False) if text]
