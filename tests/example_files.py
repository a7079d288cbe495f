"""The files that the examples ask for, as their first comments describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from own_files import question, sentence

ROWS = 300
"""Of which a share of two percent are some."""
EXAMPLES = ("own_text", "own_nightly", "hub_sft", "hub_lora", "hub_tools", "hub_thinking")
THOUGHT = "Let me look at it."
TOOL = {"name": "look", "description": "Looks at a thing.", "parameters": {"type": "object", "properties": {}}}


def write_files(folder: Path) -> None:
    (folder / "texts").mkdir()
    paragraphs = "\n\n".join(sentence(number) for number in range(2 * ROWS))
    (folder / "texts" / "words.txt").write_text(paragraphs, encoding="utf-8")
    _write(folder / "chats.jsonl", [{"messages": [_user(n), _assistant(n)]} for n in range(ROWS)])
    _write(folder / "questions.jsonl", [{"question": question(n), "answer": answer(n)} for n in range(ROWS)])
    _write(folder / "thoughts.jsonl", [{"messages": _thinking(n)} for n in range(ROWS)])
    (folder / "tool_chats.json").write_text(json.dumps([_calling(n) for n in range(ROWS)]), encoding="utf-8")


def answer(number: int) -> str:
    return sentence(number)[:12]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _user(number: int) -> dict[str, str]:
    return {"role": "user", "content": question(number)}


def _assistant(number: int, **more: str) -> dict[str, str]:
    return {"role": "assistant", **more, "content": answer(number)}


def _thinking(number: int) -> list[dict[str, str]]:
    """Two turns: the template drops the first one's thoughts once the second follows."""
    return [
        *(_user(number), _assistant(number, reasoning_content=THOUGHT)),
        *(_user(-number), _assistant(-number, reasoning_content=THOUGHT)),
    ]


def _calling(number: int) -> dict[str, Any]:
    said = [
        ("human", question(number)),
        ("gpt", answer(number)),
        ("human", "Look again."),
        ("function_call", json.dumps({"name": "look", "arguments": {"at": number}})),
        ("observation", json.dumps({"seen": answer(-number)})),
        ("gpt", answer(-number)),
    ]
    return {"conversations": [{"from": who, "value": text} for who, text in said], "tools": json.dumps([TOOL])}
