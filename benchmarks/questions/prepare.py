"""Preparing chats against TRL's `SFTTrainer`, which reads, renders, masks and packs them when it is made: the same
JSON lines, tokenizer, template and length, imports not counted. Here each row is also proved: its mask, its text, and
that inference makes the same tokens. Once more with the 256 special tokens of Llama 3's tokenizer; and plain text,
with one process and with one a core.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, Wanted
from frame.inputs import LLAMA3_SPECIAL_TOKENS, with_special_tokens, write_corpus, write_long_chats, write_tokenizer
from frame.pairs import in_pairs
from frame.peers import PEERS
from frame.processes import Ran, python, run

SEQ_LEN = 1024
TIME = 0.7
"""The share of TRL's time that is wanted at most."""


def measure(bench: Bench) -> None:
    plain = write_tokenizer(bench.folder / "tokenizer")
    special = with_special_tokens(plain, bench.folder / "special")
    chats = write_long_chats(bench.folder / "chats.jsonl", 200 if bench.toy else 5_000)
    cores = len(os.sched_getaffinity(0))
    # One process on both sides: what several bring is a question of its own, below.
    for what, tokenizer in (("chats, packed", plain), (f"chats, {LLAMA3_SPECIAL_TOKENS} special tokens", special)):
        sides = [side(name, chats, tokenizer) for name in ("ours", "trl")]
        ours, theirs = in_pairs(sides, bench.pairs)
        own, other = ours[-1][0], theirs[-1][0]
        bench.found(
            Figure(
                what=what,
                unit="s",
                ours=[told["seconds"] for told, _ in ours],
                theirs=[told["seconds"] for told, _ in theirs],
                peer="TRL",
                higher_is_better=False,
                wanted=Wanted("ratio", ">=", round(1 / TIME, 2)),
                memory=(max(ran.megabytes for _, ran in ours), max(ran.megabytes for _, ran in theirs)),
                note=f"{own['tokens']:,} tokens in {own['rows']:,} rows, "
                f"of TRL {other['tokens']:,} in {other['rows']:,}; "
                f"{1 / TIME:.2f} times as fast is {TIME} of its time",
            )
        )
    corpus = write_corpus(bench.folder / "text.jsonl", 1 if bench.toy else 10)
    several, alone = in_pairs([text_side(corpus, plain, number) for number in (cores, 1)], bench.pairs)
    bench.found(
        Figure(
            what=f"{corpus.stat().st_size / 1e6:.0f} MB of text, {cores} processes",
            unit="s",
            ours=[ran.wall for ran in several],
            theirs=[ran.wall for ran in alone],
            peer="one process",
            higher_is_better=False,
            memory=(max(ran.megabytes for ran in several), max(ran.megabytes for ran in alone)),
        )
    )


def side(name: str, chats: Path, tokenizer: Path, processes: int = 1) -> Callable[[], tuple[dict[str, Any], Ran]]:
    """One side of the chats: what it tells of itself, and its process."""

    def measured() -> tuple[dict[str, Any], Ran]:
        with tempfile.TemporaryDirectory() as folder:
            ran = run(python(PEERS / "prepare_chats.py", name, chats, tokenizer, folder, processes, SEQ_LEN))
            return json.loads(ran.output.splitlines()[-1]), ran

    return measured


def text_side(corpus: Path, tokenizer: Path, processes: int) -> Callable[[], Ran]:
    """One preparation of text, imports included."""

    def measured() -> Ran:
        with tempfile.TemporaryDirectory() as folder:
            return run(python(PEERS / "prepare_text.py", corpus, tokenizer, folder, processes))

    return measured
