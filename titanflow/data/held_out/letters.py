"""Texts as the letters and digits of their words, to find wording again however it is spaced, wrapped or marked up.

Case, punctuation, blank space, compatibility forms (``ﬁ``), HTML's entities (``&amp;``) and a string's escapes
(``\\n``) make no difference. Any span of letters has a hash of 64 bits, which takes constant time: the sum of each
letter's random number times a power of its place.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

END = "\0"
"""Ends each text, as a letter that no word has: no span across two texts equals a span in one."""
LETTER, WORD, ENDING = 1, 2, 3
IDEOGRAPHS = ((0x0E00, 0x0E80), (0x3040, 0x3400), (0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32000))
"""Letters of scripts without spaces, each a word of its own: Thai, kana, Chinese characters."""
_CODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_BREAK = re.compile(r"\\[nrt]")
_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


class Letters:
    """The letters of some texts, one text after the other.

    Attributes:
        starts: where each word begins.
        ends: the first place behind each word.
        texts: the number of each word's text.
        is_end: for each place, whether a word ends right before it.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        joined = END.join([*(text.replace(END, " ") for text in texts), ""])
        if "\\" in joined:
            joined = _BREAK.sub(" ", _CODE.sub(lambda found: chr(int(found[1], 16)), joined))
        if "&" in joined:
            joined = html.unescape(joined)
        if not joined.isascii():
            joined = unicodedata.normalize("NFKC", joined)
        points = np.frombuffer(joined.casefold().encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _kinds()[points]
        kept = np.flatnonzero(kinds)
        kinds = kinds[kept]
        # A word ends before anything that is no letter, and around a letter that is a word by itself.
        parted = np.ones(len(kept) + 1, np.bool_)
        parted[1:-1] = (np.diff(kept) > 1) | (kinds[1:] > LETTER) | (kinds[:-1] > LETTER)
        word = kinds != ENDING
        self.starts: Places = np.flatnonzero(parted[:-1] & word)
        self.ends: Places = np.flatnonzero(parted[1:] & word) + 1
        self.texts: Places = np.cumsum(~word)[self.starts]
        self.is_end = np.zeros(len(kept) + 1, np.bool_)
        self.is_end[self.ends] = True
        powers, self._inverses = _powers(len(kept))
        self._sums = np.zeros(len(kept) + 1, np.uint64)
        np.cumsum(_numbers()[points[kept]] * powers, out=self._sums[1:])

    def __len__(self) -> int:
        return len(self.is_end) - 1

    def hashes(self, starts: Places, length: int | Places) -> Hashes:
        """The hash of the span of ``length`` letters from each start; all spans must end within the letters."""
        return (self._sums[starts + length] - self._sums[starts]) * self._inverses[starts]


@cache
def _kinds() -> NDArray[np.uint8]:
    """The kind of each code point: no letter (0), a letter, a word by itself, or the end of a text."""
    kinds = np.fromiter(map(str.isalnum, map(chr, range(0x110000))), np.uint8, 0x110000)
    for first, last in IDEOGRAPHS:
        kinds[first:last] *= WORD
    kinds[ord(END)] = ENDING
    return kinds


@cache
def _numbers() -> Hashes:
    """A number of 64 bits for each code point, by splitmix64 (Steele, Lea, Flood: OOPSLA 2014)."""
    mixed = np.arange(1, 0x110001, dtype=np.uint64) * np.uint64(_BASE)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _powers(count: int) -> tuple[Hashes, Hashes]:
    powers, inverses = _powers_upto(1 << max(count, 1 << 16).bit_length())
    return powers[:count], inverses[:count]


@cache
def _powers_upto(count: int) -> tuple[Hashes, Hashes]:
    """The powers of the base, and of its inverse modulo 2^64."""
    made = []
    for base in (_BASE, _INVERSE):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        made.append(np.cumprod(factors))
    return made[0], made[1]
