from __future__ import annotations

import re

import pytest

from titanflow.config.keys.training import Part
from titanflow.data.chat.check import chat_problems
from titanflow.data.stdlib.chats import chats, held_out_names, is_held_out, mentions_held_out
from titanflow.data.stdlib.names import PublicName, read_names
from titanflow.data.stdlib.text import HELD_OUT_MODULES


@pytest.fixture(scope="module")
def train() -> list[list[dict[str, str]]]:
    return chats("train")


def everything(found: list[list[dict[str, str]]]) -> str:
    return "\n".join(turn["content"] for chat in found for turn in chat)


def test_no_training_chat_mentions_a_held_out_name(train: list[list[dict[str, str]]]) -> None:
    mentioned = set(re.findall(r"[A-Za-z_]\w*(?:\.\w+)+", everything(train)))
    held_out = {spelling for name in held_out_names() for spelling in (name.name, name.defined)}
    assert len(held_out) > 300
    assert not mentioned & held_out
    assert not [name for name in mentioned if name.partition(".")[0] in HELD_OUT_MODULES]


def test_a_chat_that_mentions_one_is_noticed() -> None:
    name = held_out_names()[0].name
    assert mentions_held_out([{"role": "user", "content": f"Is {name} a class?"}])
    assert mentions_held_out([{"role": "assistant", "content": "See textwrap.unheard_of."}])
    assert not mentions_held_out([{"role": "assistant", "content": "Return a string. Like a queue."}])


@pytest.mark.parametrize("part", ["dev", "test"])
def test_held_out_chats_ask_about_the_held_out_names_of_their_part_only(part: Part) -> None:
    held_out = {name.name for name in held_out_names(part)}
    found = chats(part)
    assert len(found) > 200
    for chat in found:
        assert {word.rstrip(".?:") for word in chat[0]["content"].split()} & held_out


def test_all_held_out_names_of_a_module_are_in_one_part() -> None:
    modules = [{name.defined.partition(".")[0] for name in held_out_names(part)} for part in ("dev", "test")]
    assert not modules[0] & modules[1]
    assert len(held_out_names("dev")) + len(held_out_names("test")) == len(held_out_names())


def test_all_names_of_a_definition_are_held_out_together() -> None:
    parts: dict[str, set[bool]] = {}
    for name in read_names():
        parts.setdefault(name.defined, set()).add(is_held_out(name))
    assert {len(found) for found in parts.values()} == {1}
    assert is_held_out(PublicName("shlex.anything", "class", "shlex", "shlex.anything", ""))


def test_the_questions_are_asked_in_the_issues_words(train: list[list[dict[str, str]]]) -> None:
    text = everything(train)
    for wording in (r"Is \S+ a class or a function\?", r"Which module defines \S+\?", r"What does \S+ do\?"):
        assert len(re.findall(wording, text)) > 200


def test_answers_are_true(train: list[list[dict[str, str]]]) -> None:
    names = {name.name: name for name in read_names()}
    first, module = re.compile(r"Is (\S+) a class or a function\?"), re.compile(r"Which module defines (\S+)\?")
    checked = 0
    for chat in train:
        question, answer = chat[0]["content"], chat[1]["content"]
        if match := first.fullmatch(question):
            assert answer == f"A {names[match[1]].kind}."
            checked += 1
        elif match := module.fullmatch(question):
            assert answer == f"{match[1]} is defined in {names[match[1]].module}."
            checked += 1
    assert checked > 1000


def test_chats_are_short_valid_many_and_some_have_several_turns(train: list[list[dict[str, str]]]) -> None:
    assert 2000 <= len(train) <= 7000
    assert not [chat for chat in train if chat_problems(chat, "")]
    lengths = {len(chat) for chat in train}
    assert {2, 4} <= lengths <= {2, 4, 6}


def test_kinds_are_balanced(train: list[list[dict[str, str]]]) -> None:
    text = everything(train)
    classes, functions = text.count("A class."), text.count("A function.")
    assert 0.4 < classes / (classes + functions) < 0.6


def test_chats_are_the_same_every_time_and_limited(train: list[list[dict[str, str]]]) -> None:
    assert chats("train") == train
    assert chats("train", limit=7) == train[:7]
