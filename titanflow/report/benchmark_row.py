"""A finished training's speed and memory as a row of a markdown table: for a family's README, or beside another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from titanflow.common.quantities import GIB, short, size
from titanflow.plan.forecast.layout import Layout
from titanflow.run.contract import METRICS_FILE, StageRun
from titanflow.run.manifest import Manifest
from titanflow.run.metrics import read_metrics
from titanflow.run.training import finished_training

COLUMNS = (
    *("model", "parameters", "devices", "techniques", "tokens a row", "rows a step", "steps"),
    *("tokens/s a device", "MFU", "memory a rank", "loss", "torch"),
)
UNKNOWN = "–"


def benchmark_table(folders: Iterable[Path]) -> str:
    """A markdown table with a row for each training stage's folder.

    Speed and MFU are medians of the logged steps; MFU is a dash if the device's peak isn't known. Memory is the peak
    that a rank reserved on its device; on a CPU it is that of the first rank's process.

    Raises:
        DataError: a folder is no finished training stage's.
    """
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(_row, folders)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(folder: Path) -> tuple[str, ...]:
    (run, result), records = finished_training(folder), read_metrics(folder / METRICS_FILE)
    layout = Layout.of(run.config)
    rates = [one["mfu"] for one in records if "mfu" in one]
    reserved = [one["system"].get("memory_reserved_gib", 0) * GIB for one in records if "system" in one]
    memory, speed = max(reserved, default=0) or result.peak_memory_bytes, result.tokens_per_second
    return (
        f"{result.model_name} {result.flavor}",
        short(result.parameters),
        f"{layout.processes} × {_device(run)}",
        ", ".join(_techniques(run.config, layout)),
        f"{layout.seq_len:,}",
        f"{layout.batch:,}",
        f"{result.step:,}",
        f"{speed / layout.processes:,.0f}" if speed else UNKNOWN,
        f"{median(rates):.1f} %" if rates else UNKNOWN,
        size(memory) if memory else UNKNOWN,
        UNKNOWN if result.loss is None else f"{result.loss:.3f}",
        result.versions.get("torch", UNKNOWN),
    )


def _device(run: StageRun) -> str:
    record = Manifest.open(run.folder.parent).stages.get(run.stage)
    return (record.forecast.get("device") if record else "") or str(run.config["launcher"]["device"])


def _techniques(config: Mapping[str, Any], layout: Layout) -> Iterator[str]:
    """The other settings that speed and memory depend on, named as in torchtitan's benchmarks."""
    degrees = {"FSDP": layout.shard, "DDP": layout.replicate, "TP": layout.tensor, "PP": layout.pipeline}
    degrees |= {"CP": layout.context, "EP": int(config["parallelism"]["expert_parallel_degree"])}
    yield from (f"{name} {degree}" for name, degree in degrees.items() if degree > 1)
    yield str(config["training"]["mixed_precision_param"])
    if (recomputed := config["activation_checkpoint"]["mode"]) != "none":
        yield f"{recomputed} AC"
    if config["compile"]["enable"]:
        yield "compile"
    if rank := config["lora"]["rank"]:
        yield f"LoRA {rank}"
    yield from config["model"]["converters"]
