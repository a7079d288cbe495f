"""Looking for evaluation items in prepared chats: this project against the n-grams of lm-eval's decontamination.

``python benchmarks/contamination.py [--rows 100000] [--items 5000]`` prepares that many chats, a hundred items among
them, and prints the seconds that it takes to find these, decoding included, and the ratio of the CPU time of the search
to lm-eval's: its ``normalize_string`` and ``word_ngrams``, looked up in a dictionary. Both search the decoded texts.
Preparing and imports aren't counted. lm-eval's side finds no question below 13 words and no text whose words are parted
otherwise.
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
from collections.abc import Iterable
from pathlib import Path

import datasets
import psutil
from frame.inputs import VOCAB, write_long_chats

from titanflow.config.files.chat_template import template_text
from titanflow.config.keys.training import Data
from titanflow.data.chat.source import load_chats
from titanflow.data.chat.tokenise import ChatPlan
from titanflow.data.chat.tokenise import write_chats as prepare_chats
from titanflow.data.dataset_info import read_info
from titanflow.data.held_out.leaked_items import Item, LeakSearch
from titanflow.data.held_out.trained_text import TrainedRows
from titanflow.data.parts.work import Work
from titanflow.data.stdlib.text import documents
from titanflow.data.tokenizer.tokenizer import train_tokenizer

PLANTED = 100
SEQ_LEN = 1024


def prepared(folder: Path, rows: int, items: list[Item]) -> TrainedRows:
    """Chats of which some are items, re-spaced and in capitals."""

    train_tokenizer((text for text, _ in documents("train")), VOCAB, folder / "tokenizer")
    write_long_chats(folder / "chats.jsonl", rows)
    with (folder / "chats.jsonl").open("a") as file:
        for item in items:
            turns = (("user", item.questions[0].upper()), ("assistant", "\n ".join(item.answers[0].split())))
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    out = folder / "rows"
    out.mkdir()
    data = Data(name="chats", kind="chat", path=str(folder / "chats.jsonl"), packing="best_fit")
    plan = ChatPlan(template_text("chatml"), "chatml", SEQ_LEN)
    work = Work(psutil.cpu_count(), folder)
    source = load_chats(data, work)
    prepare_chats(source, data, folder / "tokenizer", plan, "", out, work)
    return TrainedRows("chats", out, folder / "tokenizer", read_info(out).tokens)


def made_items(count: int) -> list[Item]:
    """Questions and answers of words of the standard library, short and long."""
    words = [word for text, _ in documents("train") for word in text.split() if word.isalpha()]
    draw = random.Random(1)
    texts = ((draw.choices(words, k=draw.randint(4, 60)), draw.choices(words, k=3)) for _ in range(count))
    return [Item((" ".join(question) + "?",), (" ".join(answer) + ".",)) for question, answer in texts]


def ours(texts: Iterable[list[str]], items: list[Item]) -> set[int]:
    """What this project finds in batches of texts."""
    search = LeakSearch({"items": items})
    for batch in texts:
        search.read(batch)
    return set(search.leaked["items"].leaked)


def lm_evals(texts: Iterable[list[str]], items: list[Item]) -> set[int]:
    """What lm-eval's n-grams find."""
    from lm_eval.decontamination.janitor import Janitor, word_ngrams

    janitor, lookup, found = Janitor(), dict[str, set[int]](), set[int]()
    for number, item in enumerate(items):
        for ngram in word_ngrams(janitor.normalize_string(f"{item.questions[0]} {item.answers[0]}"), 13):
            lookup.setdefault(ngram, set()).add(number)
    for batch in texts:
        for text in batch:
            for ngram in word_ngrams(janitor.normalize_string(text), 13):
                found |= lookup.get(ngram, set())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=5_000)
    given = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        items = made_items(given.items)
        rows = prepared(Path(name), given.rows, items[:PLANTED])
        started = time.perf_counter()
        found = ours(rows.texts(), items)
        seconds = time.perf_counter() - started
        texts = list(rows.texts())
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lm_evals([], [])
        own, peer = time.process_time(), 0.0
        ours(texts, items)
        own, peer = time.process_time() - own, time.process_time()
        found_by_peer = lm_evals(texts, items)
        peer = time.process_time() - peer
        characters = sum(len(text) for batch in texts for text in batch)
        print(f"{given.rows + PLANTED:,} chats, {characters / 1e6:,.0f} M characters, {len(items):,} items")
        print(f"  titanflow: {seconds:.1f} s by the clock, decoding included; the search {own:.1f} s of CPU")
        print(
            f"  lm-eval's n-grams: {peer:.1f} s of CPU; the ratio is {own / peer:.2f} (below 1 is faster than lm-eval)"
        )
        print(f"  planted {PLANTED}: titanflow found {len(found)}, lm-eval's n-grams {len(found_by_peer)}")
        if found != set(range(PLANTED)):
            sys.exit("not those that were planted")


if __name__ == "__main__":
    main()
