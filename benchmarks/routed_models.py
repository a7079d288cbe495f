"""What a routed model costs against its dense one: operations counted while they run, and time of a training step.

``python benchmarks/routed_models.py [--dim 512] [--layers 8] [--seq-len 512] [--rows 4] [--steps 8] [--compile]``
prints a line a family: operations a token by the formula, counted by ``torch.utils.flop_counter`` in a forward and
backward pass, and the median time of a step (forward, backward, AdamW), each as a ratio to the dense model's. The
models take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from titan.models.registry import train_spec

FAMILIES: dict[str, dict[str, Any]] = {"qwen2": {}, "mod": {"capacity": 0.125}, "dtf": {}, "tdtf": {}}
HEAD_DIM = 64
VOCAB = 2048
WARM_UP = 2
aten = torch.ops.aten
UNCOUNTED = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, out_shape=None, **settings: (
        sdpa_flop_count(q, k, v)
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *rest, out_shape=None, **settings: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
"""The CPU's attention, which torch's counter leaves out."""


def build(family: str, args: argparse.Namespace) -> torch.nn.Module:
    """A model in training mode, of the common shape."""
    default = train_spec(family).model_args["10M"]
    shape = {
        "dim": args.dim,
        "n_layers": args.layers,
        "n_heads": args.dim // HEAD_DIM,
        "n_kv_heads": max(1, args.dim // HEAD_DIM // 4),
        "hidden_dim": args.dim * 11 // 4,
        "vocab_size": VOCAB,
        "max_seq_len": args.seq_len,
    }
    model = train_spec(family).model_cls(dataclasses.replace(default, **shape, **FAMILIES[family]))
    with torch.no_grad():
        model.init_weights()
    return model.train().to(args.device)


def loss_of(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy."""
    logits = model(tokens)[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def counted_flops(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Operations a token of one forward and backward pass, attention without regard to causality."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        loss_of(model, tokens).backward()
    return counter.get_total_flops() / tokens.numel()


def step_seconds(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> float:
    """The time of one training step."""
    started = time.perf_counter()
    loss_of(model, tokens).backward()
    optimizer.step()
    optimizer.zero_grad()
    if tokens.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("dim", 512), ("layers", 8), ("seq-len", 512), ("rows", 4), ("steps", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    tokens = torch.randint(VOCAB, (args.rows, args.seq_len), device=args.device)
    models = {family: build(family, args) for family in FAMILIES}
    counted = {family: counted_flops(model, tokens) for family, model in models.items()}
    formula = {name: model.model_args.get_nparams_and_flops(model, args.seq_len)[1] for name, model in models.items()}
    if args.compile:
        for model in models.values():
            for name in list(model.layers):
                model.layers[name] = torch.compile(model.layers[name], fullgraph=True)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for step in range(WARM_UP + args.steps):
        for name, model in models.items():
            elapsed = step_seconds(model, optimizers[name], tokens)
            if step >= WARM_UP:
                seconds[name].append(elapsed)
    shape = f"dim {args.dim}, {args.layers} layers, {args.rows} rows of {args.seq_len} tokens"
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}{', compiled' if args.compile else ''}"
    print(f"{shape}, {args.device}, {threads}")
    print("family  formula MFLOP  counted MFLOP  counted/formula  counted/dense  step s  step/dense")
    for name in models:
        ratios = [one / dense for one, dense in zip(seconds[name], seconds["qwen2"], strict=True)]
        print(
            f"{name:6}  {formula[name] / 1e6:13.1f}  {counted[name] / 1e6:13.1f}  {counted[name] / formula[name]:15.3f}"
            f"  {counted[name] / counted['qwen2']:13.3f}  {median(seconds[name]):6.3f}  {median(ratios):10.3f}"
        )


if __name__ == "__main__":
    main()
