"""Files as users bring them, in formats and with names of their own."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

WORDS = (
    *("red", "green", "old", "new", "big", "small", "fast", "slow", "stone", "river", "house", "bird", "cloud", "tree"),
    *("road", "lamp", "cat", "dog", "runs", "sees"),
)


def sentence(number: int) -> str:
    """Ten words, others for each number."""
    return " ".join(random.Random(number).choices(WORDS, k=10)).capitalize() + "."


def question(number: int) -> str:
    return f"What is {number}?"


def write_csv(path: Path, header: list[str], rows: list[list[Any]], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return path


def odd_csv(folder: Path, count: int = 200) -> Path:
    """As a spreadsheet writes it, with a semicolon at each end. The documents' column has a name that says nothing to a
    program, and stands beside short ones."""
    rows = [[n, sentence(n)[:12], f"{sentence(n)}\n\n{sentence(-n)}", ""] for n in range(count)]
    return write_csv(folder / "odd.csv", ["Id", "Titel", "Der Aufsatz", ""], rows, ";")


def wiki(folder: Path, count: int = 300) -> Path:
    """One file of paragraphs."""
    path = folder / "wiki.txt"
    path.write_text("\n\n".join(sentence(n) for n in range(count)) + "\n", encoding="utf-8")
    return path


def zipped_texts(folder: Path, count: int = 60) -> Path:
    """A folder of compressed files, each a document, among files that nobody reads."""
    (folder / "texts" / "sub").mkdir(parents=True)
    for number in range(count):
        path = folder / "texts" / ("sub" if number % 2 else "") / f"{number}.txt.gz"
        path.write_bytes(gzip.compress("\n".join(sentence(10 * number + n) for n in range(5)).encode()))
    (folder / "texts" / "paper.pdf").write_bytes(b"%PDF")
    return folder / "texts"


def text_parquet(folder: Path, count: int = 200) -> Path:
    columns = {"url": [f"https://a/{n}" for n in range(count)], "content": [sentence(n) * 2 for n in range(count)]}
    parquet.write_table(pa.table(columns), folder / "pages.parquet")
    return folder / "pages.parquet"


def sharegpt(folder: Path, count: int = 60) -> Path:
    rows = [
        {"conversations": [{"from": "human", "value": question(n)}, {"from": "gpt", "value": sentence(n)}]}
        for n in range(count)
    ]
    (folder / "chats.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "chats.json"


def messages(folder: Path, count: int = 60, broken: int = 0) -> Path:
    """JSON lines; ``broken`` of them are none, and as many have no answer."""
    rows = [json.dumps({"id": n, "messages": _turns(n)}) for n in range(count)]
    rows += ["{not json"] * broken + [json.dumps({"id": -1, "messages": []})] * broken
    (folder / "messages.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "messages.jsonl"


def dialogues(folder: Path, count: int = 60, names: tuple[str, str] = ("Human", "Bot")) -> Path:
    """Parquet with other names for everything."""
    said = [[{"who": names[0], "says": question(n)}, {"who": names[1], "says": sentence(n)}] for n in range(count)]
    parquet.write_table(pa.table({"nr": list(range(count)), "talk": said}), folder / "talks.parquet")
    return folder / "talks.parquet"


def faq(folder: Path, header: tuple[str, str] = ("Question", "Answer"), count: int = 60) -> Path:
    return write_csv(folder / "faq.csv", ["nr", *header], [[n, question(n), sentence(n)] for n in range(count)])


def alpaca(folder: Path, count: int = 60) -> Path:
    rows = [{"instruction": question(n), "input": "", "output": sentence(n)} for n in range(count)]
    (folder / "alpaca.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return folder / "alpaca.json"


TEXTS: dict[str, Callable[[Path], Path]] = {
    "csv": odd_csv, "txt": wiki, "txt.gz": zipped_texts, "parquet": text_parquet,
}  # fmt: skip
CHATS: dict[str, Callable[[Path], Path]] = {
    "sharegpt": sharegpt, "messages": messages, "dialogues": dialogues, "faq": faq, "alpaca": alpaca,
}  # fmt: skip


def _turns(number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": question(number)},
        {"role": "assistant", "content": sentence(number)},
    ]
