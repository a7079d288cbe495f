"""Looking for evaluation items in prepared chats: this project against the n-grams of lm-eval's decontamination.

``python benchmarks/contamination.py [--rows 100000] [--items 5000]`` prepares that many chats, a hundred items among
them, and prints the seconds that it takes to find these, decoding included, and the ratio of its CPU time to lm-eval's:
its ``normalize_string`` and ``word_ngrams`` over the same texts, which it gets decoded, looked up in a dictionary. That
side reads a tenth of the chats, and its seconds are counted ten times. Preparing and imports aren't counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import datasets
import psutil
from sft_data import SEQ_LEN, VOCAB, write_chats

from titanflow.config.additions import Data
from titanflow.data.chat_source import load_chats
from titanflow.data.leaked_items import Item, LeakSearch
from titanflow.data.prepared import read_info
from titanflow.data.stdlib_text import documents
from titanflow.data.template import template_text
from titanflow.data.tokenise import Work
from titanflow.data.tokenise_chats import ChatPlan
from titanflow.data.tokenise_chats import write_chats as prepare_chats
from titanflow.data.tokenizer import train_tokenizer
from titanflow.data.trained_text import TrainedRows

PLANTED = 100
SHARE_OF_PEER = 10


def prepared(folder: Path, rows: int, items: list[Item]) -> TrainedRows:
    """Chats of which some are items, re-spaced and in capitals."""

    train_tokenizer((text for text, _ in documents("train")), VOCAB, folder / "tokenizer")
    write_chats(folder / "chats.jsonl", rows)
    with (folder / "chats.jsonl").open("a") as file:
        for item in items:
            turns = (("user", item.questions[0].upper()), ("assistant", "\n ".join(item.answers[0].split())))
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    out = folder / "rows"
    out.mkdir()
    data = Data(name="chats", kind="chat", path=str(folder / "chats.jsonl"), packing="best_fit")
    plan = ChatPlan(template_text("chatml"), "chatml", SEQ_LEN)
    source = load_chats(data, folder / "cache")
    prepare_chats(source, data, folder / "tokenizer", plan, "", out, Work(psutil.cpu_count(), folder))
    return TrainedRows("chats", out, folder / "tokenizer", read_info(out).tokens)


def made_items(count: int) -> list[Item]:
    """Questions and answers of words of the standard library, short and long."""
    words = [word for text, _ in documents("train") for word in text.split() if word.isalpha()]
    draw = random.Random(1)
    texts = ((draw.choices(words, k=draw.randint(4, 60)), draw.choices(words, k=3)) for _ in range(count))
    return [Item((" ".join(question) + "?",), (" ".join(answer) + ".",)) for question, answer in texts]


def ours(rows: TrainedRows, items: list[Item]) -> tuple[float, float, set[int]]:
    """This project's seconds by the clock and of the CPU, and what it found."""
    started, computed = time.perf_counter(), time.process_time()
    search = LeakSearch({"items": items})
    for texts in rows.texts():
        search.read(texts)
    found = set(search.leaked["items"].leaked)
    return time.perf_counter() - started, time.process_time() - computed, found


def lm_evals(texts: list[str], items: list[Item]) -> float:
    """The CPU's seconds of lm-eval's n-grams."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from lm_eval.decontamination.janitor import Janitor, word_ngrams

    started = time.process_time()
    janitor, lookup, found = Janitor(), dict[str, set[int]](), set[int]()
    for number, item in enumerate(items):
        for ngram in word_ngrams(janitor.normalize_string(f"{item.questions[0]} {item.answers[0]}"), 13):
            lookup.setdefault(ngram, set()).add(number)
    for text in texts:
        for ngram in word_ngrams(janitor.normalize_string(text), 13):
            found |= lookup.get(ngram, set())
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=5_000)
    given = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        items = made_items(given.items)
        rows = prepared(Path(name), given.rows, items[:PLANTED])
        texts = [text for batch in rows.texts() for text in batch]
        characters = sum(map(len, texts))
        seconds, own, found = ours(rows, items)
        peer = SHARE_OF_PEER * lm_evals(texts[::SHARE_OF_PEER], items)
        print(f"{len(texts):,} chats, {characters / 1e6:,.0f} M characters, {len(items):,} items")
        print(f"  titanflow: {seconds:.1f} s, {own:.1f} s of CPU, {characters / own / 1e6:.1f} M characters in each")
        print(
            f"  lm-eval's n-grams: {peer:.1f} s of CPU; the ratio is {own / peer:.2f} (below 1 is faster than lm-eval)"
        )
        print(f"  planted {PLANTED}, found {len(found)}")
        if found != set(range(PLANTED)):
            sys.exit("not those that were planted")


if __name__ == "__main__":
    main()
