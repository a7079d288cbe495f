"""Pretraining against plain torchtitan with the same flags, and the memory that the plan forecast for it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from inputs import write_text, write_tokenizer
from place import Place, Row, judged, not_run
from stages import Failed, begin, follow, log_of, metrics, planned, prepare, start

PLAIN = Path(__file__).parents[1] / "plain_torchtitan.py"
TOKENS, TOY_TOKENS = 16384, 128
"""In a step, at most."""
STEPS, TOY_STEPS = 12, 5
"""After so many a measurement ends. The first third of those that there was time for doesn't count: kernels are
compiled and chosen."""
FEWEST = 2
SIDE = 0.4
"""The share of a check's seconds that each side may take; the rest is for text, tokenizer and rows."""
SHARE = 0.9
"""The share of a device's memory that a forecast may take."""
SPEED, MEMORY = 0.99, 0.25
"""The wanted ratio of the speeds; the part of the measured peak by which the forecast may miss it."""
GIB = 1 << 30
TRAINING = ("seq_len", "local_batch_size", "steps", "dtype", "mixed_precision_param")


@dataclass(frozen=True)
class Model:
    """A model file with what makes it fit one GPU; ``toy`` is that of the same family for a CPU.

    ``seconds`` are those of both sides together: to start, to compile, and to train some steps.
    """

    file: str
    toy: str
    checkpointing: str = "none"
    dtype: str = "float32"
    seconds: float = 100.0


MODELS = {
    "Qwen3 0.6B": Model("qwen3_0.6B.yaml", "qwen3_debugmodel.yaml"),
    "Qwen3 1.7B": Model("qwen3_1.7B.yaml", "qwen3_debugmodel.yaml"),
    # Weights, gradients and moments in bfloat16 take 64 GB, in float32 twice as much.
    "Llama 3.1 8B": Model("llama3_8B.yaml", "llama3_debugmodel.yaml", "full", "bfloat16", 150.0),
}


def check(place: Place, name: str, seq_len: int, seconds: float) -> Iterator[Row]:
    """Trains both ways for some steps, one after the other."""
    text, tokenizer = write_text(place.folder, 1 if place.toy else 8), write_tokenizer(place.folder)
    speed, memory = rows_of(name, seq_len)
    plan = largest(place, MODELS[name], seq_len // 32 if place.toy else seq_len, text, tokenizer)
    if plan is None:
        for row in (speed, memory):
            yield not_run(row, "a row that fits", f"a row alone is forecast to exceed {SHARE:.0%} of the memory")
        return
    prepare(plan)
    stage = plan.stage("pretrain")
    enough = TOY_STEPS if place.toy else STEPS
    resident = follow(begin(stage), log_of(stage), lambda: len(metrics(stage)) >= enough, seconds * SIDE)
    records = counted(metrics(stage), "steps")
    reserved = max(record["system"]["memory_reserved_gib"] for record in records) * GIB
    yield forecast_row(memory, stage.forecast.memory.total, int(reserved) if place.has_cuda else resident)
    ours = median(record["tokens_per_second"] for record in records)
    plain = plain_speeds(place.folder / "plain", stage.run.config, text, tokenizer, enough, seconds * SIDE)
    theirs = median(counted(plain, "steps of plain torchtitan"))
    figures = {"tokens_per_second": ours, "plain_tokens_per_second": theirs, "mfu": records[-1].get("mfu")}
    mfu = "" if figures["mfu"] is None else f", MFU {figures['mfu']:.1f} %"
    found = f"{ours:,.0f} tokens/s{mfu}; plain {theirs:,.0f}: {ours / theirs:.3f}"
    yield judged(speed, f"≥ {SPEED} of plain torchtitan", found, ours / theirs >= SPEED, **figures)


def counted(steps: list[Any], what: str) -> list[Any]:
    """Those after the warm-up.

    Raises:
        Failed: there was no time for any.
    """
    if len(steps) < FEWEST:
        raise Failed(f"{len(steps)} {what} within the time: at least {FEWEST} are needed")
    return steps[(len(steps) + 2) // 3 :]


def rows_of(name: str, seq_len: int) -> Sequence[str]:
    return f"{name}, {seq_len // 1024}k: speed", f"{name}, {seq_len // 1024}k: memory forecast"


def largest(place: Place, model: Model, seq_len: int, text: Path, tokenizer: Path) -> Any:
    """The plan with the most rows a step that are forecast to fit; None if not even one does."""
    rows = max(1, (TOY_TOKENS if place.toy else TOKENS) // seq_len)
    while rows:
        modules = {"pretrain": module(place, model, seq_len, rows, text, tokenizer)}
        plan = planned(modules, place.folder / "runs")
        if plan.stage("pretrain").forecast.memory.total <= SHARE * (place.device.memory or float("inf")):
            return plan
        rows //= 2
    return None


def module(place: Place, model: Model, seq_len: int, rows: int, text: Path, tokenizer: Path) -> dict[str, Any]:
    overrides = {
        "training": {
            **{"seq_len": seq_len, "local_batch_size": rows, "steps": 1000, "dtype": model.dtype},
            "mixed_precision_param": "float32" if place.toy else "bfloat16",
        },
        "tokenizer": {"path": str(tokenizer)},
        "optimizer": {"implementation": "fused"},
        "activation_checkpoint": {"mode": model.checkpointing},
        "compile": {"enable": place.has_cuda},
        "metrics": {"log_freq": 1, "enable_wandb": False},
        "checkpoint": {"interval": 1000},
    }
    return {
        "config": "pretrain.yaml",
        "model": model.toy if place.toy else model.file,
        "data": {"path": str(text)},
        "overrides": overrides,
    }


def plain_speeds(
    folder: Path, config: dict[str, Any], text: Path, tokenizer: Path, enough: int, seconds: float
) -> list[float]:
    """Tokens per second of each step of plain torchtitan, which reads and tokenizes the text as it comes."""
    folder.mkdir()
    flags = {
        "job": {"dump_folder": str(folder)},
        "model": {**{key: config["model"][key] for key in ("name", "flavor")}, "hf_assets_path": str(tokenizer)},
        "training": {
            **{key: config["training"][key] for key in TRAINING},
            "dataset": "plain_text",
        },
        **{section: config[section] for section in ("optimizer", "lr_scheduler", "compile", "activation_checkpoint")},
        "metrics": {"log_freq": 1, "disable_color_printing": True},
        "comm": {"trace_buf_size": 0},
    }
    options = known_to_torchtitan(flags)
    (folder / "config.toml").write_text("\n".join(toml(options)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", str(PLAIN)]
    log = folder / "plain.log"
    process = start([*command, f"--job.config_file={folder / 'config.toml'}"], log, {"PLAIN_TEXT": str(text)})
    follow(process, log, lambda: len(speeds(log)) >= enough, seconds)
    return speeds(log)


def known_to_torchtitan(flags: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without this project's own keys, and without what is unset: a TOML file has no null."""
    from dataclasses import fields

    from torchtitan.config import JobConfig

    sections = {one.name: one.default_factory for one in fields(JobConfig)}
    known = {name: {one.name for one in fields(sections[name])} for name in flags}
    return {
        name: {key: value for key, value in values.items() if key in known[name] and value is not None}
        for name, values in flags.items()
    }


def toml(sections: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, values in sections.items():
        yield f"[{name}]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in values.items())


def speeds(log: Path) -> list[float]:
    found = re.findall(r"tps: ([\d,]+)", log.read_text(encoding="utf-8", errors="replace"))
    return [float(speed.replace(",", "")) for speed in found]


def forecast_row(name: str, forecast: int, peak: int) -> Row:
    """The forecast beside what was reserved of a GPU's memory, or held of this machine's."""
    found = f"{forecast / GIB:.2f} GiB, at most {peak / GIB:.2f} taken"
    is_met = abs(forecast / peak - 1) <= MEMORY
    return judged(name, f"within {MEMORY:.0%} of the peak", found, is_met, forecast=forecast, peak=peak)
