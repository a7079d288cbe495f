"""The speed of packed fine-tuning."""

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
ROWS = ["packed sft, Qwen3 1.7B, 4k"]
MFU = 40.0


def check(place: Place, seconds: float) -> Iterator[Row]:
    """The share of the peak in a step of packed chats, with varlen attention on a GPU.

    Counted are the products with weights alone: torchtitan's own figure adds attention over the whole row, which
    documents of a packed row don't compute.
    """
    wanted, peak = f"> {MFU:.0f} % of the peak by weights", place.device.peak_flops
    stage = largest(place)
    if stage is None:
        yield not_run(ROWS[0], wanted, f"a row alone is forecast to exceed {training.SHARE:.0%} of the memory")
        return
    enough = training.TOY_STEPS if place.toy else training.STEPS
    follow(begin(stage), log_of(stage), lambda: len(metrics(stage)) >= enough, seconds * 0.7)
    records = counted(metrics(stage), "steps")
    tokens = median(record["tokens_per_second"] for record in records)
    if peak is None:
        yield not_run(ROWS[0], wanted, f"{tokens:,.0f} tokens/s; no peak is known of {place.device.name}")
        return
    mfu = 100 * 6 * stage.forecast.parameters * tokens / peak
    found = f"{mfu:.1f} % ({tokens:,.0f} tokens/s; with attention over whole rows {records[-1].get('mfu', 0):.1f} %)"
    yield judged(ROWS[0], wanted, found, mfu > MFU, mfu=mfu, tokens_per_second=tokens)


def largest(place: Place) -> StagePlan | None:
    """The stage with the most rows a step that are forecast to fit; None if not even one does."""
    base = base_of(place, SMALL if place.toy else QWEN3_17B)
    for rows in (2,) if place.toy else (4, 2, 1):
        attention, seq_len = ("sdpa", 256) if place.toy else ("varlen", 4096)
        module = fine_tuned(place, base, attention, seq_len, rows, 1000, compiles=place.has_cuda)
        plan = planned({"sft": module}, place.folder / "runs")
        stage = plan.stage("sft")
        if stage.forecast.memory.total <= training.SHARE * (place.device.memory or float("inf")):
            prepare(plan)
            return stage
    return None


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
