"""Chats about the standard library's public names: the kind of each, the module that defines it, what it does.

A name is held out because its module is, or by a hash of where it is defined. No training chat mentions it.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache
from typing import Any

from titanflow.config.keys.training import Part
from titanflow.data.stdlib.names import PublicName, read_names
from titanflow.data.stdlib.text import HELD_OUT_MODULES, held_out_part, name_share

HELD_OUT_SHARE = 0.12
MOST_OF_A_MODULE = 10
"""Most names of one module that are asked about."""
LONGEST_CHAT = 265
"""Most characters of a chat, plus :data:`_HEADER` for each turn: below 96 tokens of a vocabulary of 2,048."""

KIND_QUESTIONS = (
    "Is {name} a class or a function?",
    "What kind of object is {name}?",
    "{name}: is it a function or a class?",
)
MODULE_QUESTIONS = (
    "Which module defines {name}?",
    "Where is {name} defined?",
    "In which module do I find the definition of {name}?",
)
SUMMARY_QUESTIONS = ("What does {name} do?", "What is {name} for?", "Describe {name} in one line.")
FOLLOW_UPS = {
    "kind": "Is it a class or a function?",
    "module": "Which module defines it?",
    "summary": "What does it do?",
}
_HEADER = 24
# How often a question has its first wording, which the evaluations use.
_FIRST_WORDING = 0.6
_FOLLOWED_UP = 0.4
_SUMMARISED = 0.3


def chats(part: str = "train", limit: int | None = None) -> list[list[dict[str, str]]]:
    """The conversations of one part, each a list of ``{"role", "content"}``, the same in every run.

    ``train`` mentions no held-out name; ``dev`` and ``test`` ask only about their own held-out names.
    """
    names = [name for name in read_names() if name_part(name) == part]
    found = [chat for name in _balanced(names) for chat in _chats_about(name)]
    if part == "train":
        found = [chat for chat in found if not mentions_held_out(chat)]
    return found[:limit]


def is_held_out(name: PublicName) -> bool:
    """Whether a name is kept out of training chats: the same for all names of one definition."""
    return _module(name) in HELD_OUT_MODULES or name_share(name.defined) < HELD_OUT_SHARE


def name_part(name: PublicName) -> Part:
    return held_out_part(_module(name)) if is_held_out(name) else "train"


def held_out_names(part: Part | None = None) -> list[PublicName]:
    return [name for name in read_names() if is_held_out(name) and part in (None, name_part(name))]


def mentions_held_out(chat: list[dict[str, str]]) -> bool:
    """Whether a chat mentions a held-out name in full, or any name of a held-out module."""
    text = "\n".join(turn["content"] for turn in chat)
    known, modules = _held_out_spellings()
    return bool(modules.search(text)) or any(word in known for word in re.findall(r"\w+(?:\.\w+)+", text))


def kind_answer(kind: str) -> str:
    return f"A {kind}."


def module_answer(name: PublicName) -> str:
    """The answer to a question for the module.

    It repeats the name, and a space precedes the module as it does the name in the question. A model that has learned
    to copy can then answer for names that it never saw.
    """
    return f"{name.name} is defined in {name.module}."


def _module(name: PublicName) -> str:
    return name.defined.partition(".")[0]


@cache
def _held_out_spellings() -> tuple[frozenset[str], re.Pattern[str]]:
    known = frozenset(spelling for name in held_out_names() for spelling in (name.name, name.defined))
    return known, re.compile(rf"\b(?:{'|'.join(HELD_OUT_MODULES)})\.\w")


def _balanced(names: list[PublicName]) -> list[PublicName]:
    """At most :data:`MOST_OF_A_MODULE` names of each module, chosen by hash, in the order given.

    A hundred names of one module would teach the module's name by heart; many modules teach to copy the question's.
    """
    by_module: dict[str, list[PublicName]] = {}
    for name in sorted(names, key=lambda name: hashlib.sha256(name.name.encode()).digest()):
        by_module.setdefault(name.module, []).append(name)
    kept = {name.name for found in by_module.values() for name in found[:MOST_OF_A_MODULE]}
    return [name for name in names if name.name in kept]


def _chats_about(name: PublicName) -> list[list[dict[str, str]]]:
    draw = random.Random(name.name)
    answers = {"kind": kind_answer(name.kind), "module": module_answer(name)}
    topics = list(answers)
    if name.summary:
        answers["summary"] = name.summary
        if draw.random() < _SUMMARISED:
            topics.append("summary")
    return [_chat(name, topic, answers, draw) for topic in topics]


def _chat(name: PublicName, topic: str, answers: dict[str, str], draw: random.Random) -> list[dict[str, str]]:
    questions = {"kind": KIND_QUESTIONS, "module": MODULE_QUESTIONS, "summary": SUMMARY_QUESTIONS}[topic]
    wording = questions[0] if draw.random() < _FIRST_WORDING else draw.choice(questions[1:])
    turns = _turns(wording.format(name=name.name), answers[topic])
    others = [other for other in answers if other != topic]
    while others and draw.random() < _FOLLOWED_UP:
        other = others.pop(draw.randrange(len(others)))
        longer = turns + _turns(FOLLOW_UPS[other], answers[other])
        if sum(_HEADER + len(turn["content"]) for turn in longer) > LONGEST_CHAT:
            break
        turns = longer
    return turns


def _turns(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
