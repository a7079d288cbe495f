"""Pairs in the layouts that people have them in become the same two conversations, or are refused with their column."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_samples import turns

from titanflow.common.errors import DataError
from titanflow.config.keys.chat_columns import check_declaration
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import Unreadable
from titanflow.data.held_out.row_hash import pair_hash
from titanflow.data.pairs.layout import PairFormat

ASKED = turns("Which?")
FIRST, SECOND = {"role": "assistant", "content": "This."}, {"role": "assistant", "content": "That."}
HUMAN, GPT, OTHER = (
    {"from": "human", "value": "Which?"},
    {"from": "gpt", "value": "This."},
    {"from": "gpt", "value": "That."},
)

SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a prompt of messages": ({}, {"prompt": ASKED, "chosen": [FIRST], "rejected": [SECOND]}),
    "a message each": ({}, {"prompt": ASKED[0], "chosen": FIRST, "rejected": SECOND}),
    "texts": ({}, {"prompt": "Which?", "chosen": "This.", "rejected": "That."}),
    "a shared prompt": ({}, {"chosen": [*ASKED, FIRST], "rejected": [*ASKED, SECOND]}),
    "a prompt that the sides repeat": (
        {},
        {"prompt": "Which?", "chosen": [*ASKED, FIRST], "rejected": [*ASKED, SECOND], "messages": [*ASKED, FIRST]},
    ),
    "JSON, as in CSV": (
        {},
        {"prompt": "Which?", "chosen": json.dumps([*ASKED, FIRST]), "rejected": json.dumps([*ASKED, SECOND])},
    ),
    "an empty prompt": ({}, {"prompt": "", "chosen": [*ASKED, FIRST], "rejected": [*ASKED, SECOND]}),
    "ShareGPT": ({"chat_format": "sharegpt"}, {"conversations": [HUMAN], "chosen": GPT, "rejected": OTHER}),
    "ShareGPT's lists": ({"chat_format": "sharegpt"}, {"conversations": [HUMAN], "chosen": [GPT], "rejected": [OTHER]}),
    "ShareGPT with a shared prompt": (
        {"chat_format": "sharegpt"},
        {"chosen": [HUMAN, GPT], "rejected": [HUMAN, OTHER]},
    ),
    "other columns": (
        {"columns": {"prompt": "question", "chosen": "good", "rejected": "bad"}},
        {"question": "Which?", "good": "This.", "bad": "That."},
    ),
}


def read(row: Any, **options: Any) -> Any:
    return PairFormat.of(Data(kind="pairs", **options)).pair(row)


@pytest.mark.parametrize(("options", "row"), SAME.values(), ids=SAME)
def test_a_layout_gives_both_conversations(options: dict[str, Any], row: dict[str, Any]) -> None:
    pair = read(row, **options)
    assert pair.problems == []
    assert (pair.chosen.messages, pair.rejected.messages, pair.prompt) == ([*ASKED, FIRST], [*ASKED, SECOND], 1)
    assert pair_hash(pair, row) == pair_hash(read(SAME["texts"][1]), None)


def test_texts_without_a_prompt_are_parted_as_trl_parts_them() -> None:
    from trl.data_utils import extract_prompt

    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    pair, theirs = read(row), extract_prompt(row)
    said = [pair.chosen.messages[0], pair.chosen.messages[1], pair.rejected.messages[1]]
    assert [one["content"] for one in said] == [theirs["prompt"], theirs["chosen"], theirs["rejected"]]


def test_the_prompts_answers_are_context_and_the_system_speaks_first() -> None:
    asked = turns("Which?", "Of what?", "Of these.")
    pair = read({"system": "Be brief.", "chosen": [*asked, FIRST], "rejected": [*asked, SECOND], "score": 3})
    assert pair.prompt == 4
    assert [one.get("train") for one in pair.chosen.messages] == [None, None, False, None, None]
    assert pair.rejected.messages[0] == {"role": "system", "content": "Be brief."}
    assert pair.unread == {"score": 1}


def test_a_side_may_go_on_for_several_turns() -> None:
    more = [SECOND, *turns("Sure?", "Yes.")]
    pair = read({"prompt": "Which?", "chosen": [FIRST], "rejected": more})
    assert pair.problems == []
    assert pair.rejected.messages == [*ASKED, *more]


UNTRAINED = {**FIRST, "train": False}
REFUSED: dict[str, tuple[Any, str, str]] = {
    "equal texts": (
        {"prompt": "Which?", "chosen": "This.", "rejected": "This."},
        "rejected",
        "both sides are the same",
    ),
    "equal lists": (
        {"chosen": [*ASKED, FIRST], "rejected": [*ASKED, FIRST]},
        *("rejected", "both sides are the same"),
    ),
    "equal but for the mask": (
        {"prompt": "Which?", "chosen": [FIRST], "rejected": [{**FIRST, "train": True}]},
        *("rejected", "both sides are the same"),
    ),
    "other prompts": (
        {"chosen": [*turns("What?"), FIRST], "rejected": [*ASKED, SECOND]},
        *("prompt", "the prompts differ: the sides share no beginning"),
    ),
    "other questions behind one system message": (
        {"chosen": [*turns("What?", system="S"), FIRST], "rejected": [*turns("Which?", system="S"), SECOND]},
        *("chosen", "the prompts differ: behind the messages that are shared, chosen goes on with a user's"),
    ),
    "a side with another prompt than the column": (
        {"prompt": "Which?", "chosen": [*ASKED, FIRST], "rejected": [*turns("What?"), SECOND]},
        *("rejected", "the prompts differ"),
    ),
    "nothing chosen is trained": (
        {"prompt": "Which?", "chosen": [UNTRAINED], "rejected": [SECOND]},
        *("chosen", "nothing of the chosen side is trained"),
    ),
    "nothing rejected is trained": (
        {"prompt": "Which?", "chosen": [FIRST], "rejected": [{**SECOND, "train": False}]},
        *("rejected", "nothing of the rejected side is trained"),
    ),
    "a side that ends early": (
        {"chosen": [*ASKED, FIRST, *turns("Sure?", "Yes.")], "rejected": [*ASKED, FIRST]},
        *("rejected", "this side ends with what the sides share"),
    ),
    "a text that ends early": (
        {"chosen": "Which? ", "rejected": "Which? That."},
        *("chosen", "this side ends with what the sides share"),
    ),
    "a text beside a list": ({"chosen": "This.", "rejected": [SECOND]}, "chosen", "chosen isn't a list of messages"),
    "a number": ({"prompt": "Which?", "chosen": 3, "rejected": "That."}, "chosen[1].content", "content is int"),
    "an unknown role": (
        {"prompt": "Which?", "chosen": [{"role": "bot", "content": "This."}], "rejected": "That."},
        *("chosen[1].role", "there is no role 'bot'"),
    ),
    "a missing side": ({"prompt": "Which?", "chosen": "This."}, "data.columns", "there is no column 'rejected'"),
    "no mapping": (["This.", "That."], "row", "the row isn't a mapping but list"),
    "no JSON": (Unreadable("not JSON: …"), "row", "not JSON"),
}


@pytest.mark.parametrize(("row", "key", "found"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_pair_is_refused_with_its_column(row: Any, key: str, found: str) -> None:
    problem = read(row).problems[0]
    assert (problem.key, problem.message[: len(found)]) == (key, found)


def test_pairs_have_two_layouts() -> None:
    with pytest.raises(DataError, match="found 'alpaca', and pairs have no such layout"):
        check_declaration(Data(kind="pairs", chat_format="alpaca"))
    with pytest.raises(DataError, match="pairs are read from 'chosen'"):
        check_declaration(Data(kind="pairs", leave_out=["chosen"]))
