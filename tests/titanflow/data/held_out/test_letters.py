"""Spans of letters have one hash, however their words are spaced, wrapped or marked."""

import numpy as np
import pytest

from titanflow.data.held_out.letters import Letters


def whole(text: str) -> int:
    letters = Letters([text])
    return int(letters.hashes(letters.starts[:1], int(letters.ends[-1] - letters.starts[0]))[0])


@pytest.mark.parametrize(
    "other",
    [
        "what  does\n\tos.path join",
        "WHAT DOES OS.PATH.JOIN",
        "“What does `os.path.join`”?!",
        "what does os path join",
        "what-does os'path.join…",
        "\uff37hat does os.path.join",
    ],
)
def test_spacing_case_and_punctuation_make_no_difference(other: str) -> None:
    assert whole(other) == whole("What does os.path.join?")


@pytest.mark.parametrize("other", ["what does os path joins", "does what os path join", "what does os path", "wh4t"])
def test_other_letters_have_another_hash(other: str) -> None:
    assert whole(other) != whole("What does os.path.join?")


def test_a_span_has_its_hash_wherever_it_stands() -> None:
    letters = Letters(["one two three", "zero, one two three"])

    first, second = letters.starts[0], letters.starts[4]

    assert np.unique(letters.hashes(np.array([first, second]), len("onetwothree"))).size == 1


def test_words_know_their_text_and_their_ends() -> None:
    letters = Letters(["one two", "", "drei"])

    assert letters.texts.tolist() == [0, 0, 2]
    assert (letters.ends - letters.starts).tolist() == [3, 3, 4]


def test_a_character_without_blank_space_around_it_is_a_word() -> None:
    assert len(Letters(["東京は大きい"]).starts) == 6
    assert len(Letters(["서울은 크다"]).starts) == 2


@pytest.mark.parametrize("texts", [[], [""], ["…", "\n"], ["\0"], ["\ud800"]])
def test_text_without_words_has_none(texts: list[str]) -> None:
    assert len(Letters(texts).starts) == 0
