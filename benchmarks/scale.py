"""What grows with the number of nodes: ``python benchmarks/scale.py metadata | rendezvous | imports | rows | log``.

``metadata`` builds the plans that so many ranks of FSDP make of a Llama 3 of 8 B parameters with AdamW, as torch's
distributed checkpoint does on its first rank, and reads the result as a plan does. ``rendezvous`` brings together so
many of torchrun's agents, each a process, over one c10d store. ``imports`` counts the files that one rank opens until
it could train (needs strace). ``rows`` opens prepared rows and makes an epoch's order. ``log`` counts the lines of a
rank in a stage's log.

Seconds are those of the clock and, in brackets, of the processor: on a busy machine only the latter say something.
Nothing here needs a GPU or a network.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARAMETERS = (32, 4096, 14336, 1024, 128256)
"""Layers, width, feed-forward width, width of keys and values, and vocabulary of Llama 3 8B."""
TRIED = "import titan.train.trainer, titan.train.train_spec, titan.train.job_config"


@contextmanager
def timed(what: str) -> Iterator[None]:
    clock, processor = time.perf_counter(), time.process_time()
    yield
    print(f"  {what}: {time.perf_counter() - clock:.2f} s ({time.process_time() - processor:.2f} s)", flush=True)


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The model's tensors."""
    layers, width, hidden, keys, words = PARAMETERS
    yield "tok_embeddings.weight", (words, width)
    for layer in range(layers):
        attention = {"wq": (width, width), "wk": (keys, width), "wv": (keys, width), "wo": (width, width)}
        forward = {"w1": (hidden, width), "w2": (width, hidden), "w3": (hidden, width)}
        yield from ((f"layers.{layer}.attention.{name}.weight", shape) for name, shape in attention.items())
        yield from ((f"layers.{layer}.feed_forward.{name}.weight", shape) for name, shape in forward.items())
        yield from ((f"layers.{layer}.{name}.weight", (width,)) for name in ("attention_norm", "ffn_norm"))
    yield "norm.weight", (width,)
    yield "output.weight", (words, width)


def metadata(counts: list[int]) -> None:
    import torch
    from torch.distributed.checkpoint._dedup_save_plans import dedup_save_plans
    from torch.distributed.checkpoint.default_planner import _validate_global_plan, create_default_global_save_plan
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
    from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

    from titanflow.runs.checkpoints import METADATA, flaw, read_contents

    def plan(rank: int, ranks: int) -> SavePlan:
        items = []
        for name, shape in shapes():
            rows = -(-shape[0] // ranks)
            start = min(rank * rows, shape[0])
            own = min(rows, shape[0] - start)
            for key in (name, f"optimizer.state.{name}.exp_avg", f"optimizer.state.{name}.exp_avg_sq"):
                offset, size = torch.Size((start, *[0] * (len(shape) - 1))), torch.Size((own, *shape[1:]))
                chunk = ChunkStorageMetadata(offset, size)
                data = TensorWriteData(chunk, TensorProperties(dtype=torch.float32), torch.Size(shape))
                items += [WriteItem(MetadataIndex(key, offset), WriteItemType.SHARD, tensor_data=data)] if own else []
        return SavePlan(items)

    for ranks in counts:
        plans = [plan(rank, ranks) for rank in range(ranks)]
        pieces, sent = sum(len(one.items) for one in plans), len(pickle.dumps(plans[0]))
        print(f"{ranks} ranks: {pieces:,} pieces, a rank's plan has {sent / 1e6:.2f} MB", flush=True)
        with timed("the first rank plans"):
            merged, whole = create_default_global_save_plan(dedup_save_plans(plans, False))
            assert not _validate_global_plan(merged, whole)
        whole.storage_data = {
            item.index: _StorageInfo(f"__{rank}_0.distcp", 1000 * number, 1000)
            for rank, one in enumerate(merged)
            for number, item in enumerate(one.items)
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            with timed("it writes the metadata"), (path / METADATA).open("wb") as file:
                pickle.dump(whole, file)
            print(f"  .metadata: {(path / METADATA).stat().st_size / 1e6:.1f} MB", flush=True)
            with timed("each rank reads it, to load"):
                pickle.loads((path / METADATA).read_bytes())
            with timed("a plan reads it"):
                read_contents(path)
            with timed("and looks at it again"):
                flaw(path)
        print(f"  memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB", flush=True)


def rendezvous(counts: list[int]) -> None:
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    for count in counts:
        port, began = 20000 + os.getpid() % 20000 + count, time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        children = []
        for number in range(count):
            if (child := os.fork()) == 0:
                handler = get_rendezvous_handler(
                    RendezvousParameters(
                        backend="c10d",
                        endpoint=f"127.0.0.1:{port}",
                        run_id="scale",
                        min_nodes=count,
                        max_nodes=count,
                        is_host=str(number == 0),
                        join_timeout="3600",
                        read_timeout="3600",
                    )
                )
                info = handler.next_rendezvous()
                # The first holds the store, and waits for the others.
                if number == 0:
                    info.store.wait([f"done {other}" for other in range(1, count)])
                else:
                    info.store.set(f"done {number}", "")
                os._exit(0)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        failed = sum(status != 0 for status in statuses)
        print(f"{count} agents: {time.perf_counter() - began:.1f} s ({processor:.1f} s), {failed} failed", flush=True)


def imports() -> None:
    calls = "openat,open,stat,lstat,newfstatat,statx,access,readlink,getdents64"
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace")
        for what, program in (
            ("python", "pass"),
            ("torch, torchtitan", "import torch, torchtitan.train"),
            ("all", TRIED),
        ):
            command = ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace), sys.executable, "-c", program]
            subprocess.run(command, check=True, capture_output=True)
            lines = trace.read_text(errors="replace").splitlines()
            names = Counter(found[1] for line in lines if (found := re.match(r"\d+\s+(\w+)\(", line)))
            opened = [line for line in lines if "open" in line.split("(")[0] and "= -1" not in line]
            files = {path for line in opened if (path := line.split('"')[1]).startswith("/") and "/proc" not in path}
            there = [Path(path) for path in files if Path(path).is_file()]
            size = sum(path.stat().st_size for path in there) / 1e6
            missed = sum("ENOENT" in line for line in lines)
            print(
                f"{what}: {sum(names.values()):,} calls, {missed:,} for nothing, {len(there):,} files of {size:,.0f} MB"
            )


def rows(counts: list[int]) -> None:
    import numpy as np

    from titanflow.data.order import Shuffled

    for count in counts:
        print(f"{count:,} rows: an epoch's order has {8 * count / 1e9:.2f} GB on each rank")
        order = Shuffled(count, 0)
        with timed("the first step, which makes it"):
            order.at(np.arange(4096))
        with timed("a hundred further steps of 4,096 rows"):
            for step in range(1, 101):
                order.at(np.arange(step * 4096, (step + 1) * 4096) % count)


def log(path: Path) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    steps = [line for line in lines if re.search(r"step: +\d+ ", line)]
    ranks = Counter(found[1] for line in lines if (found := re.match(r"\[rank(\d+)\]", line)))
    size = sum(map(len, steps)) / max(len(steps), 1)
    print(f"{path}: {len(lines)} lines, {len(steps)} of steps with {size:.0f} bytes; by rank {dict(ranks)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("metadata", "rendezvous", "imports", "rows", "log"))
    parser.add_argument("of", nargs="*", help="numbers of ranks, agents or rows; for log a stage's log")
    arguments = parser.parse_args()
    counts = [int(one) for one in arguments.of] if arguments.what != "log" else []
    if arguments.what == "metadata":
        metadata(counts or [8, 64, 512])
    elif arguments.what == "rendezvous":
        rendezvous(counts or [1, 2, 4, 16, 64, 100])
    elif arguments.what == "imports":
        imports()
    elif arguments.what == "rows":
        rows(counts or [1_000_000, 10_000_000])
    else:
        log(Path(arguments.of[0]))


if __name__ == "__main__":
    main()
