"""Packed fine-tuning: its speed, and documents that each kind of attention keeps apart alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import training
from inputs import VOCAB, write_chats, write_qwen3, write_tokenizer
from place import Place, Row, judged, not_run
from stages import StagePlan, begin, follow, log_of, metrics, planned, prepare
from training import counted

QWEN3_17B = {
    **{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
}
SMALL = {
    **{"vocab_size": VOCAB, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
}
SPEED_ROWS = ["packed fine-tuning, Qwen3 1.7B, 4k"]
ATTENTION_ROWS = ["documents apart by varlen attention", "documents apart by flex attention"]
MFU = 40.0
LOSS = 0.02
"""The part of a step's loss by which kernels may differ, in bfloat16."""
STEPS = 6


def speed(place: Place, seconds: float) -> Iterator[Row]:
    """The share of the peak in a step of packed chats, with varlen attention on a GPU.

    Counted are the products with weights alone: torchtitan's own figure adds attention over the whole row, which
    documents of a packed row don't compute.
    """
    sizes, attention = (SMALL, "sdpa") if place.toy else (QWEN3_17B, "varlen")
    seq_len, rows = (256, 2) if place.toy else (4096, 4)
    stage = fine_tuning(place, sizes, attention, seq_len, rows, 1000, place.has_cuda)
    enough = training.TOY_STEPS if place.toy else training.STEPS
    follow(begin(stage), log_of(stage), lambda: len(metrics(stage)) >= enough, seconds * 0.7)
    records = counted(metrics(stage), "steps")
    tokens = median(record["tokens_per_second"] for record in records)
    wanted, peak = f"> {MFU:.0f} % of the peak by weights", place.device.peak_flops
    if peak is None:
        yield not_run(SPEED_ROWS[0], wanted, f"{tokens:,.0f} tokens/s; no peak is known of {place.device.name}")
        return
    mfu = 100 * 6 * stage.forecast.parameters * tokens / peak
    found = f"{mfu:.1f} % ({tokens:,.0f} tokens/s; with attention over whole rows {records[-1].get('mfu', 0):.1f} %)"
    yield judged(SPEED_ROWS[0], wanted, found, mfu > MFU, mfu=mfu, tokens_per_second=tokens)


def attention(place: Place, seconds: float) -> Iterator[Row]:
    """The losses of the same packed rows by each kind of attention, beside those of masked attention."""
    wanted = f"losses within {LOSS:.0%} of masked attention's"
    reference = losses(place, "sdpa", seconds / 3)
    for name, kind in zip(ATTENTION_ROWS, ("varlen", "flex"), strict=True):
        if not place.has_cuda:
            yield not_run(name, wanted)
            continue
        found = losses(place, kind, seconds / 3)
        worst = max(abs(one / other - 1) for one, other in zip(found, reference, strict=True))
        yield judged(name, wanted, f"they differ by {worst:.2%} at most", worst <= LOSS, difference=worst)


def losses(place: Place, kind: str, seconds: float) -> list[float]:
    stage = fine_tuning(place, SMALL, kind, 256, 4, STEPS, False)
    follow(begin(stage), log_of(stage), lambda: len(metrics(stage)) >= STEPS, seconds)
    return [record["loss"] for record in metrics(stage)][:STEPS]


def fine_tuning(
    place: Place, sizes: dict[str, Any], attention: str, seq_len: int, rows: int, steps: int, compiles: bool
) -> StagePlan:
    """The stage, with its data prepared."""
    base = base_of(place, sizes)
    module = fine_tuned(place, base, attention, seq_len, rows, steps, compiles)
    plan = planned({"sft": module}, place.folder / "runs", attention)
    prepare(plan)
    return plan.stage("sft")


def fine_tuned(
    place: Place, base: Path, attention: str, seq_len: int, rows: int, steps: int, compiles: bool
) -> dict[str, Any]:
    """The module of a fine-tuning on packed chats."""
    overrides = {
        "model": {"attn_type": attention},
        "training": {"seq_len": seq_len, "local_batch_size": rows, "steps": steps},
        "optimizer": {"implementation": "fused"},
        "activation_checkpoint": {"mode": "none"},
        "compile": {"enable": compiles},
        "metrics": {"log_freq": 1, "enable_wandb": False},
        "checkpoint": {"interval": 1000},
    }
    chats = {"kind": "chat", "path": str(place.folder / "chats.jsonl"), "packing": "best_fit"}
    return {"base": str(base), "config": "sft.yaml", "data": chats, "overrides": overrides}


def base_of(place: Place, sizes: dict[str, Any]) -> Path:
    """The folder of a base with random weights; made with the chats when it is first asked for."""
    base = place.folder / "base"
    if not base.exists():
        write_chats(place.folder, 400 if place.toy else 20_000)
        write_qwen3(base, write_tokenizer(place.folder), place.device.kind, **sizes)
    return base
