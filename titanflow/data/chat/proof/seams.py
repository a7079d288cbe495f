"""Finds answers whose beginning is encoded differently than in the whole text.

An answer is encoded by itself, since no token can reach from a prompt into the answer that it asks for. In the history
of a later prompt the same answer is encoded with its header, and may share a token with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from titanflow.data.tokenizer.text_encoder import Place

if TYPE_CHECKING:
    from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

# Characters on either side of a cut that show whether it changes tokens. These are encoded once more: with 128 that
# took a fifth of the time of a preparation.
_AROUND = 32
# Tokens to show from either side.
_SHOWN = 4


class Piece(Protocol):
    """A piece of a text; ``is_cut`` says that it was cut from the piece before it."""

    text: str
    place: Place
    start: int
    is_cut: bool


@dataclass(frozen=True)
class Tear:
    """A cut at character ``start`` that changes tokens: the tokens of the ``parts`` and those of the ``whole`` text."""

    start: int
    parts: str
    whole: str
    changes_text: bool


class Seams:
    """Looks at the cuts of texts of one tokenizer."""

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self.tokenizer = tokenizer

    def torn(self, rows: Sequence[Sequence[Piece]]) -> list[list[Tear]]:
        """The cuts of each row that change tokens, in order."""
        cuts = [
            (row, *pair) for row, pieces in enumerate(rows) for pair in itertools.pairwise(pieces) if pair[1].is_cut
        ]
        sides = [(*_end(left), right.text[:_AROUND], right.place) for _, left, right in cuts]
        lefts = self._encoded((left, place) for left, place, _, _ in sides)
        rights = self._encoded((right, place) for _, _, right, place in sides)
        wholes = self._encoded((left + right, place) for left, place, right, _ in sides)
        found: list[list[Tear]] = [[] for _ in rows]
        for (row, _, piece), left, right, whole in zip(cuts, lefts, rights, wholes, strict=True):
            if [*left, *right] != whole:
                found[row].append(self._tear(piece.start, left, right, whole))
        return found

    def _encoded(self, texts: Iterable[tuple[str, Place]]) -> list[list[int]]:
        given = list(texts)
        found: dict[tuple[str, Place], list[int]] = {}
        # Most rows have the same headers, so equal texts are encoded once.
        different = set(given)
        for place in {place for _, place in different}:
            of_place = [text for text, one in different if one == place]
            encoded = self.tokenizer.text.encode_batch(of_place, place)
            found |= {(text, place): ids for text, ids in zip(of_place, encoded, strict=True)}
        return [found[one] for one in given]

    def _tear(self, start: int, left: list[int], right: list[int], whole: list[int]) -> Tear:
        parts = [*left, *right]
        changes_text = self.tokenizer.decode(parts) != self.tokenizer.decode(whole)
        first = next((at for at, pair in enumerate(zip(parts, whole, strict=False)) if pair[0] != pair[1]), len(left))
        return Tear(start, self._shown(parts, first), self._shown(whole, first), changes_text)

    def _shown(self, ids: list[int], at: int) -> str:
        shown = ids[max(0, at - _SHOWN) : at + _SHOWN]
        return tokens_shown((self.tokenizer.backend.id_to_token(number) or "" for number in shown), shown)


def tokens_shown(tokens: Iterable[str], ids: list[int]) -> str:
    """Tokens with their ids for an error message; a token may be a mere line end."""
    return " ".join(f"{repr(token)[1:-1]}[{number}]" for token, number in zip(tokens, ids, strict=True)) or "nothing"


def _end(piece: Piece) -> tuple[str, Place]:
    return piece.text[-_AROUND:], piece.place if len(piece.text) <= _AROUND else "continuing"
