"""Planted items are found to the last; those that were not planted aren't."""

import json
import random
import textwrap
import unicodedata

import pytest

from titanflow.data.held_out.leaked_items import FEW, Item, LeakSearch

WORDS = [f"{first}{middle}{last}" for first in "bdfgklmnprst" for middle in "aéiöu" for last in ("n", "rd", "st", "x")]


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def item(chance: random.Random, words: int, answer: int) -> Item:
    question = f"Question: {sentence(chance, words)}, isn't it?\nAnswer:"
    return Item((question,), (f"{sentence(chance, answer)}.",))


def as_it_is(text: str) -> str:
    return text


def spaced(text: str) -> str:
    return text.replace(" ", " \t  ")


def wrapped(text: str) -> str:
    return textwrap.fill(text, 17)


def shouted(text: str) -> str:
    return text.upper()


def unpunctuated(text: str) -> str:
    return "".join(char for char in text if char.isalnum() or char.isspace())


def marked(text: str) -> str:
    return f"«*{text.replace(' ', '* *')}*»"


def from_a_web_page(text: str) -> str:
    return f"<p>{text.replace(' ', '&nbsp;')}&hellip;</p>".replace("'", "&#39;")


def full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def in_a_tool_s_arguments(text: str) -> str:
    broken = text.replace(", ", ",\t").replace(" ", "\n")
    return json.dumps({"query": f"Please:\n{broken}\nThanks"})


CHANGES = [
    *(as_it_is, spaced, wrapped, shouted, unpunctuated, marked),
    *(from_a_web_page, in_a_tool_s_arguments, full_width, decomposed),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("words", "answer"), [(2, 1), (6, 3), (11, 30), (14, 1), (40, 2)])
def test_planted_items_are_found_to_the_last(change, words, answer) -> None:
    chance = random.Random(words)
    items = [item(chance, words, answer) for _ in range(200)]
    planted = set(chance.sample(range(200), 50))
    search = LeakSearch({"task": items})

    for number in planted:
        text = f"{items[number].questions[0]} {items[number].answers[0]}"
        search.read([sentence(chance, 100), f"{sentence(chance, 30)}\n{change(text)}\n{sentence(chance, 30)}"])

    found = search.leaked["task"]
    assert (found.items, set(found.leaked), found.shared) == (200, planted, 0)


def test_an_item_is_found_across_the_turns_of_a_chat() -> None:
    search = LeakSearch({"task": [Item(("Which module defines abc.ABCMeta?",), ("abc",))]})

    search.read(
        ["<|im_start|>user\nWhich module defines abc.ABCMeta?<|im_end|>\n<|im_start|>assistant\nIt is abc.<|im_end|>"]
    )

    assert search.leaked["task"].leaked == [0]


@pytest.mark.parametrize(
    "text",
    [
        "Which module defines abc.ABCMeta?",
        "Which module defines abc.ABCMeta? It's typing.",
        "Which module defines abc.ABCMeta? abcdef",
        "abc: Which module defines abc.ABCMeta?",
        f"Which module defines abc.ABCMeta? {'no ' * 30} abc",
        "Which module defines abc.ABCMetas? abc",
        "Xwhich module defines abc.ABCMeta? abc",
    ],
)
def test_a_short_question_needs_its_answer_close_behind(text: str) -> None:
    search = LeakSearch({"task": [Item(("Which module defines abc.ABCMeta?",), ("abc",))]})

    search.read([text, "abc"])

    assert search.leaked["task"].leaked == []


@pytest.mark.parametrize(
    "marks",
    [("<think>", "</think>"), ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant")],
)
def test_what_a_model_thinks_first_stands_between_no_question_and_its_answer(marks: tuple[str, str]) -> None:
    chance = random.Random(3)
    items = [Item(("Which stone is blue?",), ("sapphire",)), Item(("Which stone is red?",), ("ruby",))]
    thoughts = f"{sentence(chance, 60)} Which stone is red? ruby {sentence(chance, 60)}"
    search = LeakSearch({"task": items})
    search.read([f"user\nWhich stone is blue?\nassistant\n{marks[0]}\n{thoughts}\n{marks[1]}\n\nSapphire."])
    assert search.leaked["task"].leaked == [0, 1]


def test_one_of_several_answers_is_enough() -> None:
    search = LeakSearch({"task": [Item(("Who wrote it?",), ("Twain", "Samuel Clemens"))]})

    search.read(["Who wrote it? Samuel Clemens did."])

    assert search.leaked["task"].leaked == [0]


def test_the_wording_of_a_template_is_nobodys_own() -> None:
    template = "Read this with care, and say in one word and in no more than that what kind of thing it is: {}."
    items = [Item((template.format(f"thing{number}"),), ("class",)) for number in range(FEW + 1)]
    search = LeakSearch({"task": items})

    search.read([template.format("something else")])

    assert search.leaked["task"].leaked == []


def test_items_without_wording_of_their_own_are_counted() -> None:
    same = Item(("Is this sentence well formed?",), ("yes",))
    search = LeakSearch({"task": [same] * (FEW + 1) + [Item(("Is that one?",), ("no",))], "few": [same] * FEW})

    search.read(["Is this sentence well formed? Yes.", "Is that one? No."])

    assert (search.leaked["task"].leaked, search.leaked["task"].shared) == ([FEW + 1], FEW + 1)
    assert search.leaked["few"].leaked == list(range(FEW))


def test_a_question_is_found_by_its_column_without_the_choices() -> None:
    chance = random.Random(0)
    question, choices = sentence(chance, 20), " ".join(f"\n{letter}. {sentence(chance, 30)}" for letter in "ABCD")
    search = LeakSearch({"task": [Item((question + choices, question), ("A",))]})

    search.read([question])

    assert search.leaked["task"].leaked == [0]


def test_prose_that_shares_a_phrase_did_not_leak() -> None:
    chance = random.Random(0)
    text, phrase = sentence(chance, 200), sentence(chance, 30)
    search = LeakSearch({"task": [Item((f"{text} {phrase} {text[::-1]}",))]})

    search.read([phrase])
    assert search.leaked["task"].leaked == []

    search.read([text, text[::-1]])
    assert search.leaked["task"].leaked == [0]


def test_no_items_and_no_text_are_nothing() -> None:
    search = LeakSearch({"task": [], "blank": [Item(("…",), ("!",))]})

    search.read([])
    search.read(["some text"])

    assert search.leaked["task"].items == 0
    assert (search.leaked["blank"].leaked, search.leaked["blank"].shared) == ([], 1)
