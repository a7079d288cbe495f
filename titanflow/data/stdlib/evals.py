"""Evaluation items on what training never saw: the held-out modules' source and the held-out names of one part.

Each task of ``configs/evals`` reads one of the JSONL files that :func:`write_items` makes. Every item about a name
says what of it was held out: ``module`` (its source and its chats) or ``name`` (its chats only).
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from titanflow.config.keys.training import Part
from titanflow.data.stdlib import chats
from titanflow.data.stdlib import text as stdlib_text
from titanflow.data.stdlib.names import PublicName

TASKS = ("text", "kind", "module", "summary")
"""What is asked: each a JSONL file."""
KINDS = ("class", "function")
ITEMS = 200
"""Items of each task about names."""
EXAMPLES = 12
"""Items of each task that are never asked: examples for few-shot prompts, as many classes as functions, of ``dev``."""
CHOICES = 4
"""Summaries to choose from."""


def write_items(folder: Path, part: Part = "test") -> dict[str, Any]:
    """Writes the tasks' JSONL files of a part into ``folder`` and returns what ``dataset.json`` says of them.

    ``xz_bits_per_byte`` is what ``xz -9e`` makes of the same held-out bytes, in one piece: a yardstick for a
    model's bits per byte, by the file that holds the text.
    """
    texts = [{"text": text, "file": file.name} for text, file in stdlib_text.documents(part)]
    tasks = dict(zip(TASKS, (texts, kind_items(part), module_items(part), summary_items(part)), strict=True))
    names = _example_names()
    examples = (_kind_items(names), _module_items(names), _summary_items(names))
    for task, rows in (tasks | dict(zip(map(examples_of, TASKS[1:]), examples, strict=True))).items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")
    held_out = "".join(row["text"] for row in texts).encode()
    return {
        "items": {task: len(rows) for task, rows in tasks.items()},
        "bytes": len(held_out),
        "xz_bits_per_byte": {"text.jsonl": xz_bits_per_byte(held_out)},
        "part": part,
        "held_out_modules": [name for name in stdlib_text.HELD_OUT_MODULES if stdlib_text.held_out_part(name) == part],
    }


def examples_of(task: str) -> str:
    """The name of the file of a task's examples, without its ending."""
    return f"{task}_examples"


def item_files() -> dict[str, int | None]:
    """The files that :func:`write_items` makes, and how many items each has where that is the same on any machine."""
    examples = {f"{examples_of(task)}.jsonl": EXAMPLES for task in TASKS if task != "text"}
    return {**{f"{task}.jsonl": None for task in TASKS}, **examples}


def xz_bits_per_byte(text: bytes) -> float:
    """Bits that ``xz -9e`` needs for each byte of ``text``."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def kind_items(part: Part) -> list[dict[str, Any]]:
    """Class or function: as many of the one as of the other, so that guessing scores a half."""
    return _kind_items(_balanced(_asked_names(part), ITEMS))


def _balanced(names: list[PublicName], most: int) -> list[PublicName]:
    """The first names, as many classes as functions."""
    each = [[name for name in names if name.kind == kind] for kind in KINDS]
    count = min(most // len(KINDS), *(len(found) for found in each))
    return [name for found in each for name in found[:count]]


def _kind_items(names: list[PublicName]) -> list[dict[str, Any]]:
    choices = [chats.kind_answer(kind) for kind in KINDS]
    return [
        {
            "question": chats.KIND_QUESTIONS[0].format(name=name.name),
            "choices": choices,
            "answer": choices.index(chats.kind_answer(name.kind)),
            "held_out": _held_out(name),
        }
        for name in sorted(names, key=lambda name: name.name)
    ]


def module_items(part: Part) -> list[dict[str, Any]]:
    """Which module defines a name."""
    return _module_items(_asked_names(part)[:ITEMS])


def _module_items(names: list[PublicName]) -> list[dict[str, Any]]:
    return [
        {
            "question": chats.MODULE_QUESTIONS[0].format(name=name.name),
            "answer": name.module,
            "held_out": _held_out(name),
        }
        for name in sorted(names, key=lambda name: name.name)
    ]


def summary_items(part: Part) -> list[dict[str, Any]]:
    """Which of four summaries is a name's own; the other three are those of other names of the part.

    A summary that a training chat gave as an answer (two names can share one) is neither asked nor offered.
    """
    names = _untold(_asked_names(part))
    return _summary_items(names[:ITEMS], {name.summary for name in names})


def _untold(names: list[PublicName]) -> list[PublicName]:
    """Those whose summary no training chat gave as an answer."""
    trained = {turn["content"] for chat in chats.chats("train") for turn in chat}
    return [name for name in names if name.summary and name.summary not in trained]


def _summary_items(names: list[PublicName], offered: Collection[str] = ()) -> list[dict[str, Any]]:
    summaries = sorted(offered or {name.summary for name in names})
    items = []
    for name in sorted(names, key=lambda name: name.name):
        draw = random.Random(name.name)
        choices = draw.sample([summary for summary in summaries if summary != name.summary], CHOICES - 1)
        answer = draw.randrange(CHOICES)
        choices.insert(answer, name.summary)
        items.append(
            {
                "question": chats.SUMMARY_QUESTIONS[0].format(name=name.name),
                "choices": choices,
                "answer": answer,
                "held_out": _held_out(name),
            }
        )
    return items


def _asked_names(part: Part) -> list[PublicName]:
    examples = _example_names() if part == "dev" else []
    return [name for name in _drawn_names(part) if name not in examples]


def _example_names() -> list[PublicName]:
    return _balanced(_untold(_drawn_names("dev")), EXAMPLES)


def _drawn_names(part: Part) -> list[PublicName]:
    # One item a definition, by its shortest name, in an order that has nothing to do with the alphabet.
    by_length = sorted(chats.held_out_names(part), key=lambda name: (-len(name.name), name.name))
    names = {name.defined: name for name in by_length}
    return random.Random(0).sample(list(names.values()), len(names))


def _held_out(name: PublicName) -> str:
    return "module" if name.defined.partition(".")[0] in stdlib_text.HELD_OUT_MODULES else "name"
