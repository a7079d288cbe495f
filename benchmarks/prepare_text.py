"""Preparing text in parts: one process against several, and the memory of the process that puts the parts together.

``python benchmarks/prepare_text.py [--megabytes 100] [--processes 2] [--pairs 2]`` prints, for each pair, the seconds
with one process and with several, and their ratio; then the memory for all text and for a tenth of it. Each preparation
runs in a process of its own, imports are counted, and the order within a pair alternates, so that what else the machine
does counts for both. One process uses the tokenizer's threads; ``RAYON_NUM_THREADS=1`` leaves them out. Memory is the
anonymous memory at its highest, without the pages of files that are mapped, of all processes together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from sft_data import watch

from titanflow.config.keys.training import Data
from titanflow.data.stdlib.text import documents
from titanflow.data.tokenizer.tokenizer import train_tokenizer

VOCAB = 8192


def write_corpus(path: Path, megabytes: float) -> None:
    """Documents of the standard library, numbered, so that no two are equal."""
    texts, written, number = [text for text, _ in documents("train")], 0, 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            written += file.write(json.dumps({"text": f"{number}\n{texts[number % len(texts)]}"}) + "\n")
            number += 1


def prepare(corpus: Path, tokenizer: Path, folder: Path, processes: int) -> None:
    from titanflow.data.files.text_source import load_text
    from titanflow.data.files.tokenise_text import write_text
    from titanflow.data.parts.work import Work

    data, work = Data(name="corpus", path=str(corpus)), Work(processes, folder)
    out = folder / "out"
    out.mkdir()
    write_text(load_text(data, work), data, tokenizer, "", out, work)


def measure(corpus: Path, tokenizer: Path, processes: int) -> tuple[float, float]:
    """Seconds and megabytes of one preparation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--prepare", str(corpus), str(tokenizer), folder, str(processes)]
        started = time.perf_counter()
        process, peak = subprocess.Popen(command), [0]
        watcher = threading.Thread(target=watch, args=(process.pid, peak))
        watcher.start()
        if process.wait():
            sys.exit("a preparation failed")
        seconds = time.perf_counter() - started
        watcher.join()
        return seconds, peak[0] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--prepare", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        corpus, tokenizer, folder, processes = given.prepare
        prepare(Path(corpus), Path(tokenizer), Path(folder), int(processes))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer((text for text, _ in documents("train")), VOCAB, folder / "tokenizer")
        write_corpus(folder / "all.jsonl", given.megabytes)
        write_corpus(folder / "tenth.jsonl", given.megabytes / 10)
        ratios, peaks = [], []
        for pair in range(given.pairs):
            found = {}
            for processes in (1, given.processes)[:: -1 if pair % 2 else 1]:
                found[processes], peak = measure(folder / "all.jsonl", folder / "tokenizer", processes)
                peaks += [peak] if processes == 1 else []
            ratios.append(found[given.processes] / found[1])
            told = ", ".join(f"{processes} processes {seconds:.1f} s" for processes, seconds in sorted(found.items()))
            print(f"{given.megabytes:g} MB: {told}, ratio {ratios[-1]:.2f}", flush=True)
        _, tenth = measure(folder / "tenth.jsonl", folder / "tokenizer", 1)
        print(
            f"median ratio {median(ratios):.2f}; memory of one process {max(peaks):.0f} MB, for a tenth {tenth:.0f} MB"
        )


if __name__ == "__main__":
    main()
