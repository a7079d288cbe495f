"""Where a training step's time goes on a CPU, and which share of the matrix products' rate it reaches.

``python benchmarks/step_profile.py [--dim 512] [--layers 14] [--rows 2] [--seq-len 512] [--format float32]
[--json FILE]`` trains a llama (50 million parameters) through ``titan.train`` for some steps. One is profiled by
torch.profiler, the others are timed, in CPU seconds of one thread, so that other processes don't count. The rate beside
it is that of the same products alone, measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

STEPS, PROFILED = 5, 3
HEAD_DIM = 64
RESULT, SHAPE = "STEP_PROFILE_RESULT", "STEP_PROFILE_SHAPE"
"""Variables for the training's process: where its figures go, and the rows, width and number format."""
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn"),
    "attention": ("attention", "_flash_", "sdpa"),
    "optimizer": ("adam",),
    "norms": ("norm",),
    "loss": ("softmax", "nll_loss", "cross_entropy"),
    "copies and casts": ("copy", "contiguous", "clone", "aten::cat", "aten::to"),
}
"""What an operator belongs to, by a part of its name; the first that fits."""


def profile_stage() -> None:
    """In the training's process: measures its steps and writes what came of it."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from titan.train.train import main as train
    from titan.train.trainer import Trainer

    rows, dim, name = os.environ[SHAPE].split(",")
    whole, seconds, operators = Trainer.train_step, [], {}

    def step(trainer: Trainer, batches: Iterator[Any]) -> None:
        start = time.process_time()
        if trainer.step != PROFILED:
            whole(trainer, batches)
            seconds.append(time.process_time() - start)
        else:
            with profile(activities=[ProfilerActivity.CPU]) as found:
                whole(trainer, batches)
            operators.update({one.key: one.self_cpu_time_total / 1e6 for one in found.key_averages()})
        # A training ends its process by itself.
        figures = {"seconds": seconds[1:], "operators": operators, "rate": rate}
        Path(os.environ[RESULT]).write_text(json.dumps(figures), encoding="utf-8")

    Trainer.train_step = step  # type: ignore[method-assign, assignment]
    rate = product_rate(int(rows), int(dim), getattr(torch, name))
    train()


def product_rate(rows: int, dim: int, dtype: Any) -> float:
    """Operations a CPU second of the three products of a layer's linear map: forward, and both of its gradients."""
    import torch

    hidden = 4 * dim
    tokens, weight, slope = (torch.randn(*shape, dtype=dtype) for shape in ((rows, dim), (hidden, dim), (rows, hidden)))
    times = []
    for _ in range(8):
        start = time.process_time()
        for left, right in ((tokens, weight.t()), (slope, weight), (slope.t(), tokens)):
            torch.mm(left, right)
        times.append(time.process_time() - start)
    return 3 * 2 * rows * dim * hidden / min(times)


def kind_of(operator: str) -> str:
    return next(
        (kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "element by element"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=512, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--format", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    given = parser.parse_args()
    from stage_speed import VOCAB, prepare, sections, torchrun, train_tokenizer, write_text

    from titanflow.planning.forecast.device import cpu
    from titanflow.runs.contract import PreparedData, StageRun
    from titanflow.runs.results import TrainResult, result_of

    with tempfile.TemporaryDirectory(prefix="titanflow-profile-") as place:
        root = Path(place)
        text = write_text(root)
        tokenizer = train_tokenizer(text, root / "tokenizer")
        config = sections(STEPS, root / "tokenizer")
        shape = {"seq_len": given.seq_len, "local_batch_size": given.rows, "mixed_precision_param": given.format}
        config["training"] |= shape
        config["optimizer"] = {"implementation": "fused"}
        config["checkpoint"] = {"interval": STEPS}
        heads = given.dim // HEAD_DIM
        model = {"dim": given.dim, "n_layers": given.layers, "n_heads": heads, "n_kv_heads": heads, "vocab_size": VOCAB}
        data = PreparedData(train=prepare(text, tokenizer, root / "data"))
        run = StageRun(
            **{"stage": "pretrain", "experiment": "x", "run": "x", "folder": root / "stage"},
            **{"config": config, "model_overrides": model, "data": data},
        )
        tokens = given.rows * given.seq_len
        env = {RESULT: str(root / "figures.json"), SHAPE: f"{tokens},{given.dim},{given.format}"}
        torchrun([__file__, str(run.write())], run.folder, 1, **env, OMP_NUM_THREADS="1")
        figures = json.loads((root / "figures.json").read_text())
        result = result_of(run.folder)
        assert isinstance(result, TrainResult)
        parameters = result.parameters
    seconds, rate = median(figures["seconds"]), figures["rate"]
    # Six operations a weight and token; the embedding multiplies nothing, and attention's squares come on top.
    products = 6 * tokens * (parameters - VOCAB * given.dim)
    squares = given.layers * 12 * given.rows * given.seq_len**2 * given.dim // 2
    share = (products + squares) / seconds / rate
    kinds: Counter[str] = Counter()
    for operator, taken in figures["operators"].items():
        kinds[kind_of(operator)] += taken
    total = sum(kinds.values())
    import torch

    print(
        f"{cpu().name}, one thread, torch {torch.__version__}, {given.format}: {parameters / 1e6:.1f} M parameters, ",
        end="",
    )
    print(f"{given.rows} rows of {given.seq_len}")
    reached = (products + squares) / seconds
    print(f"a step takes {seconds:.2f} s: {tokens / seconds:,.0f} tokens/s, {reached / 1e9:.0f} GFLOPS")
    print(f"its products alone reach {rate / 1e9:.0f} GFLOPS: a step reaches {share:.0%} of that\n")
    print("| part | share of a step |\n| --- | --- |")
    for kind, taken in kinds.most_common():
        print(f"| {kind} | {taken / total:.1%} |")
    print("\n| operator | share |\n| --- | --- |")
    for operator, taken in Counter(figures["operators"]).most_common(14):
        print(f"| `{operator}` ({kind_of(operator)}) | {taken / total:.1%} |")
    if given.json:
        about = {"machine": cpu().name, "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        about |= {"command": " ".join(sys.argv), "parameters": parameters, "share_of_rate": share}
        given.json.write_text(json.dumps(about | figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    profile_stage() if RESULT in os.environ else main()
