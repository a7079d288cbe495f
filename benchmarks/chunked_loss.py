"""Time and memory of a step with the loss in parts (``training.loss_chunks``) beside the whole loss.

``python benchmarks/chunked_loss.py [--vocabulary 8192 32768 …] [--chunks 1 4 8 16] [--rounds 3]`` computes forward and
backward passes of a llama, each number of parts in a process of its own and all of them in turns, and prints a table:
the median CPU time of a step, which other programs change less than its duration, and the most memory that the process
held above what it held before its first step. ``OMP_NUM_THREADS=1`` leaves out the time in which threads wait.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import time
from statistics import median

FIRST = 2
"""Steps that aren't counted: the first ones allocate."""


def steps(vocabulary: int, chunks: int, args: argparse.Namespace) -> tuple[float, int]:
    """The median CPU seconds of a step, and the bytes that the steps added to the process's peak."""
    import torch
    from torchtitan.components.loss import cross_entropy_loss

    from titan.models.registry import train_spec
    from titan.process.peak_memory import peak_memory_bytes
    from titan.train.chunked_loss import chunk_head, summed

    spec = train_spec("llama3")
    shape = {"dim": args.dim, "n_layers": args.layers, "n_heads": args.dim // 64, "n_kv_heads": args.dim // 64}
    model_args = dataclasses.replace(
        spec.model_args["debugmodel"], **shape, vocab_size=vocabulary, max_seq_len=args.seq_len
    )
    torch.manual_seed(0)
    model = spec.model_cls(model_args)
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
    if chunks > 1:
        chunk_head(model, chunks, cross_entropy_loss)
    tokens = torch.randint(0, vocabulary, (args.rows, args.seq_len))
    before, seconds = peak_memory_bytes(), []
    for _ in range(FIRST + args.steps):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            if chunks > 1:
                loss = summed(model(tokens, labels=tokens), tokens)
            else:
                loss = cross_entropy_loss(model(tokens), tokens)
        (loss / tokens.numel()).backward()
        model.zero_grad()
        seconds.append(time.process_time() - started)
    return median(seconds[FIRST:]), (peak_memory_bytes() or 0) - (before or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[8192, 32768, 128256])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true", help="by autocast")
    args = parser.parse_args()
    print("| vocabulary | parts | CPU ms a step (each round) | of the whole loss | MiB above the model |")
    print("|---|---|---|---|---|")
    # Each process is a fork of one that has imported torch, and holds nothing else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["titan.models.registry", "titan.train.chunked_loss"])
    for vocabulary in args.vocabulary:
        found: dict[int, list[tuple[float, int]]] = {chunks: [] for chunks in args.chunks}
        for _ in range(args.rounds):
            for chunks in args.chunks:
                with context.Pool(1) as pool:
                    found[chunks].append(pool.apply(steps, (vocabulary, chunks, args)))
        whole = [seconds for seconds, _ in found[args.chunks[0]]]
        for chunks, runs in found.items():
            shares = median(one / other for (one, _), other in zip(runs, whole, strict=True))
            times = ", ".join(f"{1000 * seconds:.0f}" for seconds, _ in runs)
            memory = median(peak for _, peak in runs) / 2**20
            print(f"| {vocabulary:,} | {chunks} | {times} | {shares:.2f} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
