"""What is said of items that were, or weren't, found in the training data."""

import pytest

from titanflow.runs.scores.contamination import Contamination, TaskLeaks


def test_none_found_is_said() -> None:
    found = Contamination(tasks={"a": TaskLeaks(items=1200), "b": TaskLeaks(items=34)}, looked_at=["web", "chats"])

    assert list(found.sentences()) == ["None of the 1,234 items was found in the training data (web, chats)."]


@pytest.mark.parametrize(
    ("dropped", "said"), [(False, "They are part of the scores."), (True, "These items are not scored.")]
)
def test_those_found_are_counted_by_task(dropped: bool, said: str) -> None:
    tasks = {"a": TaskLeaks(items=200, leaked=[0, 7, 9]), "b": TaskLeaks(items=10, shared=4)}
    found = Contamination(
        tasks=tasks, looked_at=["web"], not_looked_at=["chats of sft: it is streamed"], dropped=dropped
    )

    assert list(found.sentences()) == [
        "3 of 200 items of a (1.5%) were found in the training data (web).",
        said,
        "4 items of b have no wording of their own and can't be looked for.",
        "Not looked at: chats of sft: it is streamed.",
    ]


def test_where_nothing_could_be_looked_at_nothing_is_said_of_the_items() -> None:
    found = Contamination(not_looked_at=["the training data of theirs, which was trained elsewhere"])

    assert list(found.sentences()) == ["Not looked at: the training data of theirs, which was trained elsewhere."]
