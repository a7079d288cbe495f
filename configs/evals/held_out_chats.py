"""Questions and scores of the tasks on held-out chats: each conversation's first question, and the answer to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import dropwhile
from typing import Any


def first_exchanges(rows: Any) -> Any:
    """The first question and its answer of each conversation that has both as text."""
    from datasets import Dataset

    found = [exchange for row in rows if (exchange := _first_exchange(row["messages"]))]
    return Dataset.from_list(found)


def score(exchange: Mapping[str, Any], results: Iterable[Any]) -> dict[str, Any]:
    """The likelihood of the answer with its bytes, and whether the model would give it word for word."""
    ((likelihood, is_greedy),) = results
    return {"bits_per_byte": (likelihood, len(exchange["answer"].encode())), "acc": int(is_greedy)}


def score_written(exchange: Mapping[str, Any], results: Iterable[str]) -> dict[str, int]:
    """Whether what the model wrote ends, behind its thoughts, in the answer."""
    (written,) = results
    return {"exact_match": int(_said(written) == _said(exchange["answer"]))}


def _said(text: str) -> str:
    return text.rpartition("</think>")[2].strip()


def _first_exchange(messages: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    turns = dropwhile(lambda turn: turn[0] != "user", _turns(messages))
    question = next(turns, ("", ""))[1]
    answer = next((text for role, text in turns if role == "assistant"), "")
    return {"question": question, "answer": answer} if question and answer else None


def _turns(messages: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        content = message["content"]
        yield message["role"], content if isinstance(content, str) else "".join(part["text"] for part in content or ())
