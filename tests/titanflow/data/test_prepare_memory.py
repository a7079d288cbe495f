"""What the process of a prepare stage holds in memory: no torch, and no more for more text."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from peak_memory import peak_of

from titanflow.runs.contract import StageRun

COMMAND = [sys.executable, "-m", "titanflow.data.prepare"]
GROWTH = 25e6
"""Bytes by which a preparation may grow whatever it reads: the tokens of a batch, and what an allocator keeps."""
WORDS = ("read", "write", "a", "line", "of", "text", "that", "nobody", "wrote", "the", "quick", "brown", "fox")


def test_preparing_imports_no_torch(prepare_run: Callable[..., StageRun], tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("def read(path):\n    return path\n" * 40)
    run = prepare_run({"path": str(tmp_path / "corpus.txt")})
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    done = subprocess.run(
        [*COMMAND, str(run.folder / "run.yaml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "PyTorch" in done.stderr) == (0, False), done.stderr


def test_memory_does_not_grow_with_the_text(prepare_run: Callable[..., StageRun], tmp_path: Path) -> None:
    peaks = []
    for megabytes in (2, 20):
        # Always the same words: a tokenizer's training counts the different ones.
        path, draw = tmp_path / f"text{megabytes}.txt", random.Random(0)
        with path.open("w") as file:
            while file.tell() < megabytes << 20:
                file.write(" ".join(draw.choices(WORDS, k=200)) + "\n")
        run = prepare_run({"name": path.stem, "path": str(path), "document": "line"}, num_proc=1)
        peaks.append(peak_of([*COMMAND, str(run.folder / "run.yaml")]))
    assert peaks[1] - peaks[0] < GROWTH
