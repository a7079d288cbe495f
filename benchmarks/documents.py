"""Attention to the documents of packed rows one by one, against a dense mask: same queries, keys and values, in turns.

``python benchmarks/documents.py [--rounds 7] [--json FILE]`` prints the milliseconds of a forward and a backward pass,
the median ratio with its range, and the largest difference of a gradient. Rows of one document have no mask on the
second side. Times are of CPU, on one thread, so that other processes count for neither side. It ends with 1 where the
faster side isn't the one that a training would take.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from titan.models.documents import DocumentAttention, DocumentMask, document_lengths, document_mask
from titanflow.planning.forecast.device import cpu

SHAPES = ((8, 6, 512, 64), (8, 4, 128, 32), (2, 8, 2048, 64))
"""Rows, heads, tokens of a row and the width of a head."""
DOCUMENTS = (1, 3, 10, 40)
EQUAL = 0.95


def positions_of(rows: int, seq_len: int, documents: int) -> torch.Tensor:
    """Each row's documents are of random lengths."""
    parts = []
    for _ in range(rows):
        cuts = (torch.randperm(seq_len - 1)[: documents - 1] + 1).sort().values
        ends = torch.cat([torch.zeros(1, dtype=torch.long), cuts, torch.tensor([seq_len])])
        parts += [torch.arange(int(length)) for length in ends.diff()]
    return torch.cat(parts).view(rows, seq_len)


def step(mask: DocumentMask, inputs: list[torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    """Milliseconds of CPU, and the gradients."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    start = time.process_time()
    output = DocumentAttention(mask)(*(one.transpose(1, 2) for one in leaves)).transpose(1, 2).contiguous()
    output.backward(torch.ones_like(output))
    return 1000 * (time.process_time() - start), [one.grad for one in leaves if one.grad is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{cpu().name}, torch {torch.__version__}\n")
    print("| rows × heads × tokens × width | documents a row | dense ms | one by one ms | ratio | error | taken |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found, is_right = [], True
    for rows, heads, seq_len, width in SHAPES:
        for documents in DOCUMENTS:
            positions = positions_of(rows, seq_len, documents)
            inputs = [torch.randn(rows, seq_len, heads, width) for _ in range(3)]
            dense, apart, taken = DocumentMask(), DocumentMask(), DocumentMask()
            dense.mask = document_mask(positions)
            apart.lengths = document_lengths(positions) if documents > 1 else None
            taken.read(positions, one_by_one=True)
            times: list[tuple[float, float]] = []
            for _ in range(given.rounds):
                (before, wanted), (after, slopes) = step(dense, inputs), step(apart, inputs)
                times.append((before, after))
            error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(slopes, wanted, strict=True))
            ratios = sorted(before / after for before, after in times)
            before, after = (median(one) for one in zip(*times, strict=True))
            choice = "the mask" if taken.mask is not None else "one by one"
            is_right &= median(ratios) < 1 / EQUAL if taken.mask is not None else median(ratios) > EQUAL
            shape = f"{rows} × {heads} × {seq_len} × {width}"
            ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(
                f"| {shape} | {documents} | {before:.1f} | {after:.1f} | {ratio} | {error:.0e} | {choice} |", flush=True
            )
            found.append(
                {
                    "shape": [rows, heads, seq_len, width],
                    "documents": documents,
                    "ms": times,
                    "error": error,
                    "takes": choice,
                }
            )
    if given.json:
        about = {"machine": cpu().name, "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        about["command"] = " ".join(sys.argv)
        given.json.write_text(
            json.dumps(about | {"attention": found, "met": is_right}, indent=2) + "\n", encoding="utf-8"
        )
    print(f"\na training takes the faster of both: {'yes' if is_right else 'no'}")
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
