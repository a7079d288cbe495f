"""Finds evaluation items in text that was trained on.

Items are found by their wording. A question of 13 words or more is searched by its runs of 13 words, the n-grams of
GPT-3's and lm-eval's decontamination; it leaked if half of them are found. A shorter question is searched as a whole,
with its answer close behind. Wording that more than three items of a task share is the task's own and is ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from titanflow.data.held_out.letters import Hashes, Letters, Places

WORDS = 13
"""Words of an n-gram: Brown et al. 2020, appendix C."""
FEW = 3
"""Most items that may share wording, such as questions on one passage; if more share it, it belongs to the task."""
SHARE = 0.5
"""The share of an item's own n-grams from which it counts as leaked: held-out prose shares phrases with any text."""
CLOSE = 20
"""Most words before a short question's answer: a template's marks, a role's name, "the answer is"."""
_THOUGHTS = re.compile(r"<think>.*?</think>|<\|channel\|>analysis<\|message\|>.*?<\|end\|>", re.DOTALL)
_THOUGHTS_END = re.compile(r"</think>|<\|channel\|>analysis")
"""Templates' marks for thoughts before an answer: of Qwen3, DeepSeek R1 and others, and of gpt-oss."""
_PREFIX = 16
"""First letters of a long span; most words of a text are ruled out by them."""
_BITS = 24
Answers = tuple[tuple[int, int], ...]
"""Length and hash of each answer."""


@dataclass(frozen=True)
class Item:
    """One evaluation item.

    ``questions`` are the forms in which it may appear: as the model is asked, and as its data has it. ``answers`` are
    the gold answers. An item of scored text has the text in ``questions`` and no answers.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leaked:
    """One task's result: how many items it has, which ones leaked, and how many have no wording of their own."""

    items: int
    leaked: list[int]
    shared: int = 0


@dataclass(frozen=True)
class _Way:
    """One way to find an item: by spans, half of which must be found, or by one span with an answer behind it."""

    item: int
    spans: list[int]
    answers: Answers = ()


class LeakSearch:
    """Searches texts for the items of some tasks: hand them to :meth:`read`, then ask :attr:`leaked`."""

    def __init__(self, tasks: Mapping[str, Sequence[Item]]) -> None:
        self._counts = {name: len(items) for name, items in tasks.items()}
        spans = _Spans()
        self._ways = {name: _task_ways(items, spans) for name, items in tasks.items()}
        self._found = np.zeros(len(spans), np.bool_)
        self._answered: set[tuple[int, Answers]] = set()
        self._behind: dict[int, set[Answers]] = {}
        every_way = [way for ways in self._ways.values() for way in ways]
        for way in every_way:
            if way.answers:
                self._behind.setdefault(way.spans[0], set()).add(way.answers)
        self._by_length, self._prefixes = spans.index({span for way in every_way for span in way.spans})

    @property
    def leaked(self) -> dict[str, Leaked]:
        """The results so far, by task."""
        found = {}
        for name, ways in self._ways.items():
            leaked = sorted({way.item for way in ways if self._is_there(way)})
            found[name] = Leaked(self._counts[name], leaked, self._counts[name] - len({way.item for way in ways}))
        return found

    def read(self, texts: Iterable[str]) -> None:
        """Searches texts for the items; hand over a few million letters at a time."""
        letters = Letters(_without_thoughts_too(texts))
        likely = letters.starts[letters.starts + _PREFIX <= len(letters)]
        likely = likely[self._prefixes[_bits(letters.hashes(likely, _PREFIX))]]
        for length, (hashes, numbers) in self._by_length.items():
            starts = letters.starts if length < _PREFIX else likely
            starts = starts[starts + length <= len(letters)]
            starts = starts[letters.is_end[starts + length]]
            found = letters.hashes(starts, length)
            places = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
            is_there = hashes[places] == found
            spans = numbers[places[is_there]]
            self._found[spans] = True
            self._look_behind(letters, spans, starts[is_there] + length)

    def _look_behind(self, letters: Letters, spans: Places, ends: Places) -> None:
        """Looks for the answers of the short questions that end at ``ends``."""
        for span in set(np.unique(spans).tolist()) & self._behind.keys():
            for answers in self._behind[span]:
                if (span, answers) not in self._answered and _follows(letters, ends[spans == span], answers):
                    self._answered.add((span, answers))

    def _is_there(self, way: _Way) -> bool:
        if way.answers:
            return (way.spans[0], way.answers) in self._answered
        return bool(self._found[way.spans].mean() >= SHARE)


class _Spans:
    """The spans to search for, each with a number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._prefixes: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, letters: Letters, starts: Places, ends: Places) -> list[int]:
        """The number of each span; equal spans have the same number."""
        lengths = ends - starts
        prefixes = letters.hashes(starts, np.minimum(lengths, _PREFIX))
        keys = zip(lengths.tolist(), letters.hashes(starts, lengths).tolist(), strict=True)
        numbers = []
        for key, prefix in zip(keys, prefixes.tolist(), strict=True):
            if key not in self._numbers:
                self._numbers[key] = len(self._numbers)
                self._prefixes.append(prefix)
            numbers.append(self._numbers[key])
        return numbers

    def index(self, used: Set[int]) -> tuple[dict[int, tuple[Hashes, Places]], NDArray[np.bool_]]:
        """By length, the sorted hashes of the used spans and their numbers; and a bit set of their first letters."""
        by_length: dict[int, list[tuple[int, int]]] = {}
        for (length, found), number in self._numbers.items():
            if number in used:
                by_length.setdefault(length, []).append((found, number))
        beginnings = [self._prefixes[number] for length in by_length for _, number in by_length[length]]
        prefixes = np.zeros(1 << _BITS, np.bool_)
        prefixes[_bits(np.array(beginnings, np.uint64))] = True
        sorted_lists = {length: list(zip(*sorted(pairs), strict=True)) for length, pairs in sorted(by_length.items())}
        return {
            length: (np.array(hashes, np.uint64), np.array(numbers, np.int64))
            for length, (hashes, numbers) in sorted_lists.items()
        }, prefixes


def _without_thoughts_too(texts: Iterable[str]) -> Iterator[str]:
    """Each text, and again without its thoughts, which stand between a question and its answer."""
    for text in texts:
        yield text
        if _THOUGHTS_END.search(text):
            yield _THOUGHTS.sub(" ", text)


def _bits(hashes: Hashes) -> Hashes:
    return hashes >> np.uint64(64 - _BITS)


def _task_ways(items: Sequence[Item], spans: _Spans) -> list[_Way]:
    """The ways to find each item, without the task's own wording."""
    texts = [(number, text) for number, item in enumerate(items) for text in dict.fromkeys(item.questions)]
    letters, answers = Letters(text for _, text in texts), _answers(items)
    bounds = np.searchsorted(letters.texts, np.arange(len(texts) + 1))
    ways = []
    for place, (number, _) in enumerate(texts):
        of_text = slice(bounds[place], bounds[place + 1])
        starts, ends = letters.starts[of_text], letters.ends[of_text]
        if len(starts) >= WORDS:
            ways.append(_Way(number, spans.add(letters, starts[: 1 - WORDS], ends[WORDS - 1 :])))
        elif len(starts):
            ways.append(_Way(number, spans.add(letters, starts[:1], ends[-1:]), answers[number]))
    return list(_without_shared(ways))


def _answers(items: Sequence[Item]) -> list[Answers]:
    """Length and hash of the first words of each item's answers."""
    texts = [(number, text) for number, item in enumerate(items) for text in item.answers]
    letters = Letters(text for _, text in texts)
    bounds = np.searchsorted(letters.texts, np.arange(len(texts) + 1))
    found: list[set[tuple[int, int]]] = [set() for _ in items]
    for place, (number, _) in enumerate(texts):
        starts, ends = (one[bounds[place] : bounds[place + 1]][:WORDS] for one in (letters.starts, letters.ends))
        if len(starts):
            length = int(ends[-1] - starts[0])
            found[number].add((length, int(letters.hashes(starts[:1], length)[0])))
    return [tuple(sorted(one)) for one in found]


def _without_shared(ways: Sequence[_Way]) -> Iterator[_Way]:
    """The ways without spans that more than :data:`FEW` items share; ways with no other spans are left out."""
    together = {(way.item, way.spans[0], way.answers) for way in ways if way.answers}
    pairs = Counter((span, answers) for _, span, answers in together)
    counts = Counter(span for _, span in {(way.item, span) for way in ways if not way.answers for span in way.spans})
    for way in ways:
        if way.answers:
            if pairs[way.spans[0], way.answers] <= FEW:
                yield way
        elif own := [span for span in way.spans if counts[span] <= FEW]:
            yield _Way(way.item, own)


def _follows(letters: Letters, ends: Places, answers: Answers) -> bool:
    """Whether an answer begins within :data:`CLOSE` words behind one of ``ends``, in the same text."""
    words = np.searchsorted(letters.starts, ends)[:, None] + np.arange(CLOSE + 1)
    text = letters.texts[np.searchsorted(letters.ends, ends)]
    is_in = words < len(letters.starts)
    words = np.minimum(words, len(letters.starts) - 1)
    starts = letters.starts[words[is_in & (letters.texts[words] == text[:, None])]]
    for length, wanted in answers:
        near = starts[starts + length <= len(letters)]
        near = near[letters.is_end[near + length]]
        if (letters.hashes(near, length) == np.uint64(wanted)).any():
            return True
    return False
