"""Training in bfloat16 against float32: same model, same rows, same machine, in turns.

``python benchmarks/precision.py [--steps 24] [--pairs 3] [--dim 384] [--seq-len 512] [--batch 8] [--json FILE]`` prints
the rate of matrix products of this model's shapes in both formats, then for each pair (each its own seed) tokens per
second and the loss on held-out text. A run's rate is that of its fastest logged interval. It ends with 1 where
``mixed_precision_param: auto`` chooses the slower on this CPU. 384 wide it has 12 million parameters.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from stage_speed import LOG_FREQ, VOCAB, WARM_UP, documents_of, prepare, sections, torchrun, train_tokenizer, write_text

from titanflow.config.settled.precision import cpu_precision
from titanflow.planning.forecast.device import cpu
from titanflow.runs.contract import METRICS_FILE, PreparedData, StageRun
from titanflow.runs.metrics import read_metrics

FORMATS = ("float32", "bfloat16")
HELD_OUT = 10
"""One document in so many is held out."""
HEAD_DIM = 64
LAYERS = 6
PRODUCTS = 30
EQUAL = 0.95
"""A choice this near to the faster format isn't wrong: runs differ by as much."""


def product_rate(rows: int, inner: int, columns: int, name: str) -> float:
    """Operations a second of ``[rows, inner] × [inner, columns]``, the fastest of :data:`PRODUCTS`."""
    dtype = getattr(torch, name)
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    times = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        times.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / min(times)


def train(folder: Path, data: PreparedData, tokenizer: Path, given: argparse.Namespace, name: str, seed: int) -> Any:
    """Tokens a second and the last held-out loss of one training."""
    config = sections(given.steps, tokenizer)
    config["training"] |= {"seq_len": given.seq_len, "local_batch_size": given.batch, "mixed_precision_param": name}
    config["validation"] = {
        "enable": True,
        "freq": given.steps,
        "steps": 8,
        "local_batch_size": given.batch,
        "seq_len": given.seq_len,
    }
    config["optimizer"] = {"lr": 2e-3, "implementation": "fused"}
    config["debug"] = {"seed": seed}
    config["checkpoint"] = {"interval": given.steps}
    heads = given.dim // HEAD_DIM
    model = {"dim": given.dim, "n_layers": LAYERS, "n_heads": heads, "n_kv_heads": heads, "vocab_size": VOCAB}
    run = StageRun(
        stage="pretrain", experiment="x", run="x", folder=folder, config=config, model_overrides=model, data=data
    )
    torchrun(["-m", "titan.train.train", str(run.write())], folder, 1)
    lines = read_metrics(folder / METRICS_FILE)
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    return max(rates[WARM_UP:]), losses[-1]


def prepared(root: Path) -> tuple[Path, PreparedData]:
    """The tokenizer, and the rows to train on and to validate on."""
    text = write_text(root)
    tokenizer = train_tokenizer(text, root / "tokenizer")
    documents = documents_of(text)
    parts = {"validation": documents[::HELD_OUT], "train": [one for n, one in enumerate(documents) if n % HELD_OUT]}
    folders = {}
    for part, texts in parts.items():
        path = root / f"{part}.jsonl"
        path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
        folders[part] = prepare(path, tokenizer, root / part)
    return root / "tokenizer", PreparedData(**folders)


def spread(values: list[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help=f"more than {LOG_FREQ * WARM_UP}")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--dim", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    given = parser.parse_args()
    choice = cpu_precision()
    rows = given.seq_len * given.batch
    products = {name: product_rate(rows, given.dim, 4 * given.dim, name) / 1e9 for name in FORMATS}
    print(f"{cpu().name}, torch {torch.__version__}; auto is {choice.dtype}: {choice.why}")
    print("matrix products: " + ", ".join(f"{name} {rate:,.0f} GFLOPS" for name, rate in products.items()), flush=True)
    rates: dict[str, list[float]] = {name: [] for name in FORMATS}
    losses: dict[str, list[float]] = {name: [] for name in FORMATS}
    with tempfile.TemporaryDirectory(prefix="titanflow-precision-") as place:
        root = Path(place)
        tokenizer, data = prepared(root)
        for pair in range(given.pairs):
            for name in FORMATS if pair % 2 == 0 else reversed(FORMATS):
                rate, loss = train(root / f"{name}-{pair}", data, tokenizer, given, name, pair)
                rates[name].append(rate)
                losses[name].append(loss)
                print(f"seed {pair} {name:8} {rate:8,.0f} tokens/s, held-out loss {loss:.4f}", flush=True)
    ratios = [narrow / wide for wide, narrow in zip(*rates.values(), strict=True)]
    more = [narrow - wide for wide, narrow in zip(*losses.values(), strict=True)]
    print(f"bfloat16 / float32: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) in tokens a second")
    print(f"held-out loss in bfloat16 less that in float32: {spread(more)}; float32 {spread(losses['float32'])}")
    best = max(FORMATS, key=lambda name: median(rates[name]))
    is_right = median(rates[choice.dtype]) >= EQUAL * median(rates[best])
    print(f"auto chooses {choice.dtype}, the faster is {best}: {'right' if is_right else 'wrong'}")
    if given.json:
        figures = {
            "machine": cpu().name,
            "torch": torch.__version__,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "command": " ".join(sys.argv),
            "product_gflops": products,
            "tokens_per_second": rates,
            "held_out_loss": losses,
            "ratio": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
            "auto": choice.dtype,
            "met": is_right,
        }
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
