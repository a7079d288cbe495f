"""Evaluation items on what training never saw: the held-out modules' source and the held-out names of one part.

Each task of ``configs/evals`` reads one of the JSONL files that :func:`write_items` makes. Every item about a name
says what of it was held out: ``module`` (its source and its chats) or ``name`` (its chats only).
"""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path
from typing import Any

from titanflow.config.additions import Part
from titanflow.data import stdlib_chats, stdlib_text
from titanflow.data.stdlib_names import PublicName

TASKS = ("text", "kind", "module", "summary")
"""What is asked: each a JSONL file."""
ITEMS = 200
"""Items of each task about names."""
CHOICES = 4
"""Summaries to choose from."""


def write_items(folder: Path, part: Part = "test") -> dict[str, Any]:
    """Writes the tasks' JSONL files of a part into ``folder`` and returns what ``dataset.json`` says of them.

    ``xz_bits_per_byte`` is what ``xz -9e`` makes of the same held-out bytes, in one piece: a yardstick for a
    model's bits per byte, by the file that holds the text.
    """
    texts = [{"text": text, "file": file.name} for text, file in stdlib_text.documents(part)]
    tasks = dict(zip(TASKS, (texts, kind_items(part), module_items(part), summary_items(part)), strict=True))
    for task, rows in tasks.items():
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


def xz_bits_per_byte(text: bytes) -> float:
    """Bits that ``xz -9e`` needs for each byte of ``text``."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def kind_items(part: Part) -> list[dict[str, Any]]:
    """Class or function: as many of the one as of the other, so that guessing scores a half."""
    names = _asked_names(part)
    each = {kind: [name for name in names if name.kind == kind] for kind in ("class", "function")}
    count = min(ITEMS // 2, *(len(found) for found in each.values()))
    choices = [stdlib_chats.kind_answer(kind) for kind in each]
    chosen = sorted((name for found in each.values() for name in found[:count]), key=lambda name: name.name)
    return [
        {
            "question": stdlib_chats.KIND_QUESTIONS[0].format(name=name.name),
            "choices": choices,
            "answer": choices.index(stdlib_chats.kind_answer(name.kind)),
            "held_out": _held_out(name),
        }
        for name in chosen
    ]


def module_items(part: Part) -> list[dict[str, Any]]:
    """Which module defines a name."""
    return [
        {
            "question": stdlib_chats.MODULE_QUESTIONS[0].format(name=name.name),
            "answer": name.module,
            "held_out": _held_out(name),
        }
        for name in sorted(_asked_names(part)[:ITEMS], key=lambda name: name.name)
    ]


def summary_items(part: Part) -> list[dict[str, Any]]:
    """Which of four summaries is a name's own; the other three are those of other names of the part.

    A summary that a training chat gave as an answer (two names can share one) is neither asked nor offered.
    """
    trained = {turn["content"] for chat in stdlib_chats.chats("train") for turn in chat}
    names = [name for name in _asked_names(part) if name.summary and name.summary not in trained]
    summaries = sorted({name.summary for name in names})
    items = []
    for name in sorted(names[:ITEMS], key=lambda name: name.name):
        draw = random.Random(name.name)
        choices = draw.sample([summary for summary in summaries if summary != name.summary], CHOICES - 1)
        answer = draw.randrange(CHOICES)
        choices.insert(answer, name.summary)
        items.append(
            {
                "question": stdlib_chats.SUMMARY_QUESTIONS[0].format(name=name.name),
                "choices": choices,
                "answer": answer,
                "held_out": _held_out(name),
            }
        )
    return items


def _asked_names(part: Part) -> list[PublicName]:
    # One item a definition, by its shortest name, in an order that has nothing to do with the alphabet.
    by_length = sorted(stdlib_chats.held_out_names(part), key=lambda name: (-len(name.name), name.name))
    names = {name.defined: name for name in by_length}
    return random.Random(0).sample(list(names.values()), len(names))


def _held_out(name: PublicName) -> str:
    return "module" if name.defined.partition(".")[0] in stdlib_text.HELD_OUT_MODULES else "name"
