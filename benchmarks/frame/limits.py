"""What the machine gives at most: ``python benchmarks/frame/limits.py [--toy]`` prints it as JSON.

``matmul_float32`` and ``matmul_bfloat16`` are the best rates of matrix products in FLOP/s, with all threads;
``memory`` is that of copying in bytes/s, read and written bytes counted; ``disk_write`` and ``disk_read`` are bytes/s
of one file, of which the first ends on the disk, and the second comes from the system's cache, as a file does that
was just written. ``import_torch`` and its like are the seconds of a bare interpreter that imports nothing but one
library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPEATS = 7
IMPORTED = ("torch", "transformers", "torchtitan.train", "lm_eval.evaluator", "prefect")


def best_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The shortest of some times: a limit is what is possible."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def matrix_product(dtype: str, size: int) -> float:
    """FLOP/s of a square matrix product."""
    import torch

    one, other = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(one)
    torch.mm(one, other, out=out)
    return 2 * size**3 / best_seconds(lambda: torch.mm(one, other, out=out))


def memory_rate(megabytes: int) -> float:
    """Bytes/s of a copy."""
    import torch

    one = torch.ones(megabytes * 1_000_000 // 4)
    other = torch.empty_like(one)
    other.copy_(one)
    return 2 * one.nbytes / best_seconds(lambda: other.copy_(one))


def disk_rates(megabytes: int) -> tuple[float, float]:
    """Bytes/s of writing a file, with its way to the disk, and of reading it again."""
    data = os.urandom(megabytes * 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")

        def write() -> None:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        written = best_seconds(write, 3)
        return len(data) / written, len(data) / best_seconds(path.read_bytes, 3)


def import_seconds(library: str, repeats: int = 3) -> float:
    """Seconds of an interpreter that imports one library and ends."""
    command = [sys.executable, "-c", f"import {library}"]
    return best_seconds(lambda: subprocess.run(command, check=True, capture_output=True), repeats)


def limits(toy: bool = False) -> dict[str, float]:
    """All of them."""
    size = 256 if toy else 2048
    written, read = disk_rates(4 if toy else 256)
    repeats = 1 if toy else 2
    return {
        **{f"matmul_{dtype}": matrix_product(dtype, size) for dtype in ("float32", "bfloat16")},
        "memory": memory_rate(8 if toy else 512),
        "disk_write": written,
        "disk_read": read,
        "start_python": best_seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), repeats),
        **{
            f"import_{name.partition('.')[0]}": import_seconds(name, repeats) for name in IMPORTED[: 1 if toy else None]
        },
    }


if __name__ == "__main__":
    print(json.dumps(limits("--toy" in sys.argv)))
