"""The items of lm-eval's tasks as texts to search for in the training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from titanflow.data.held_out.leaked_items import Item

LEAST_WORDS = 3
"""A column with fewer words stands for the question only if it is at least half of it."""


def task_items(task: Any, limit: float | None) -> list[Item]:
    """The items of a loaded task that would be asked under ``limit``, in order."""
    from lm_eval.evaluator_utils import get_sample_size

    documents = task.doc_iterator(rank=0, limit=get_sample_size(task, limit), world_size=1)
    return [task_item(task, document) for _, document in documents]


def task_item(task: Any, document: Mapping[str, Any]) -> Item:
    """One item: the question as asked and as its column has it, and the gold answers."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return Item((str(task.doc_to_target(document)),))
    question, target = task.doc_to_text(document), task.doc_to_target(document)
    choices = list(task.doc_to_choice(document)) if task.config.doc_to_choice is not None else []
    if isinstance(question, int):
        # As in winogrande: the choices are beginnings of one text, and the question is the right one's number.
        return Item((f"{choices[question]} {target}",))
    golds = target if isinstance(target, list | tuple) else [target]
    answers = tuple(dict.fromkeys(answer for gold in golds for answer in _answers(gold, choices, document)))
    asked = str(question)
    if not asked.strip():
        return Item(answers)
    return Item((asked, *_columns(document, asked)), answers)


def _answers(gold: Any, choices: list[Any], document: Mapping[str, Any]) -> Iterator[str]:
    """A gold answer as asked for; if the choices are letters, also as a column has it."""
    place = gold if isinstance(gold, int) else choices.index(gold) if gold in choices else -1
    if not 0 <= place < len(choices):
        yield str(gold)
        return
    yield str(choices[place])
    if all(len(str(one)) == 1 for one in choices):
        for column in document.values():
            if isinstance(column, list) and len(column) == len(choices):
                yield str(column[place])


def _columns(document: Mapping[str, Any], asked: str) -> Iterator[str]:
    """The longest column that occurs in the question: it lacks the template's words."""
    within = " ".join(asked.split())
    texts = [value for value in document.values() if isinstance(value, str) and " ".join(value.split()) in within]
    longest = max(texts, key=len, default="")
    if len(longest.split()) >= LEAST_WORDS or 2 * len(longest) >= len(asked):
        yield longest
