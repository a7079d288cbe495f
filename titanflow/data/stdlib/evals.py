"""Evaluation items that training never saw: the held-out modules' source and the held-out names of one part.

Each task of ``configs/evals`` reads one of the JSONL files that :func:`write_items` makes. In an item about a name,
``held_out`` says how it was held out: ``module`` (its source and its chats) or ``name`` (its chats only).
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
"""The tasks, each with a JSONL file."""
KINDS = ("class", "function")
ITEMS = 200
"""Most items of each task about names."""
EXAMPLES = 12
"""Examples of each task for few-shot prompts: as many classes as functions, from ``dev`` and never asked."""
CHOICES = 4
"""Summaries to choose from."""


def write_items(folder: Path, part: Part = "test") -> dict[str, Any]:
    """Writes the tasks' JSONL files of a part into ``folder`` and returns the entries for ``dataset.json``.

    ``xz_bits_per_byte`` is the size to which ``xz -9e`` compresses the held-out text in one piece, by the text's file:
    a yardstick for a model's bits per byte.
    """
    texts = [{"text": text, "file": file.name} for text, file in stdlib_text.documents(part)]
    shown = _balanced(_untold(_drawn_names("dev")), EXAMPLES)
    asked = [name for name in _drawn_names(part) if part != "dev" or name not in shown]
    untold = _untold(asked)
    tasks = {
        "text": texts,
        "kind": _kind_items(_balanced(asked, ITEMS)),
        "module": _module_items(asked[:ITEMS]),
        "summary": _summary_items(untold[:ITEMS], {name.summary for name in untold}),
    }
    examples = {"kind": _kind_items(shown), "module": _module_items(shown), "summary": _summary_items(shown)}
    for name, rows in (tasks | {examples_of(task): rows for task, rows in examples.items()}).items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    held_out = "".join(row["text"] for row in texts).encode()
    return {
        "items": {task: len(rows) for task, rows in tasks.items()},
        "bytes": len(held_out),
        "xz_bits_per_byte": {"text.jsonl": xz_bits_per_byte(held_out)},
        "part": part,
        "held_out_modules": [name for name in stdlib_text.HELD_OUT_MODULES if stdlib_text.held_out_part(name) == part],
    }


def examples_of(task: str) -> str:
    return f"{task}_examples"


def item_files() -> dict[str, int | None]:
    """The files that :func:`write_items` makes, with their number of items if it is the same on any machine."""
    return {f"{task}.jsonl": None for task in TASKS} | {f"{examples_of(task)}.jsonl": EXAMPLES for task in TASKS[1:]}


def xz_bits_per_byte(text: bytes) -> float:
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def _balanced(names: list[PublicName], most: int) -> list[PublicName]:
    """The first names, as many classes as functions, so that guessing the kind scores a half."""
    each = [[name for name in names if name.kind == kind] for kind in KINDS]
    count = min(most // len(KINDS), *(len(found) for found in each))
    return [name for found in each for name in found[:count]]


def _item(name: PublicName, questions: tuple[str, ...], **answer: Any) -> dict[str, Any]:
    held_out = "module" if name.defined.partition(".")[0] in stdlib_text.HELD_OUT_MODULES else "name"
    return {"question": questions[0].format(name=name.name), **answer, "held_out": held_out}


def _kind_items(names: list[PublicName]) -> list[dict[str, Any]]:
    choices = [chats.kind_answer(kind) for kind in KINDS]
    return [
        _item(name, chats.KIND_QUESTIONS, choices=choices, answer=choices.index(chats.kind_answer(name.kind)))
        for name in sorted(names, key=lambda name: name.name)
    ]


def _module_items(names: list[PublicName]) -> list[dict[str, Any]]:
    ordered = sorted(names, key=lambda name: name.name)
    return [_item(name, chats.MODULE_QUESTIONS, answer=name.module) for name in ordered]


def _untold(names: list[PublicName]) -> list[PublicName]:
    """The names whose summary no training chat gave as an answer: two names can share one."""
    trained = {turn["content"] for chat in chats.chats("train") for turn in chat}
    return [name for name in names if name.summary and name.summary not in trained]


def _summary_items(names: list[PublicName], offered: Collection[str] = ()) -> list[dict[str, Any]]:
    """Items that ask which of four summaries is a name's own; the others are from ``offered``, or from ``names``."""
    summaries = sorted(offered or {name.summary for name in names})
    items = []
    for name in sorted(names, key=lambda name: name.name):
        draw = random.Random(name.name)
        choices = draw.sample([summary for summary in summaries if summary != name.summary], CHOICES - 1)
        answer = draw.randrange(CHOICES)
        choices.insert(answer, name.summary)
        items.append(_item(name, chats.SUMMARY_QUESTIONS, choices=choices, answer=answer))
    return items


def _drawn_names(part: Part) -> list[PublicName]:
    # One name for each definition, its shortest, in an order that is independent of the alphabet.
    by_length = sorted(chats.held_out_names(part), key=lambda name: (-len(name.name), name.name))
    names = {name.defined: name for name in by_length}
    return random.Random(0).sample(list(names.values()), len(names))
