"""A finished training's speed and memory as a row of a markdown table: for a family's README, or beside another's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from titanflow.common.quantities import GIB, short, size
from titanflow.planning.forecast.layout import Layout
from titanflow.runs.contract import METRICS_FILE, StageRun
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import read_metrics
from titanflow.runs.training import finished_training

UNKNOWN = "–"
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "model": ("model", str),
    "parameters": ("parameters", short),
    "devices": ("devices", str),
    "techniques": ("techniques", ", ".join),
    "seq_len": ("tokens a row", "{:,}".format),
    "batch": ("rows a step", "{:,}".format),
    "steps": ("steps", "{:,}".format),
    "tokens_per_second": ("tokens/s a device", "{:,.0f}".format),
    "mfu": ("MFU", "{:.1f} %".format),
    "memory_bytes": ("memory a rank", size),
    "loss": ("loss", "{:.3f}".format),
    "torch": ("torch", str),
}
"""Each value of a row: its column's head in markdown, and how it is written there."""


def benchmark_row(folder: Path) -> dict[str, Any]:
    """A training stage's values, by the names of :data:`COLUMNS`; None for what isn't known.

    Speed and MFU are medians of the logged steps; MFU needs the device's peak. Memory is the peak that a rank reserved
    on its device; on a CPU it is that of the first rank's process.

    Raises:
        DataError: the folder is no finished training stage's.
    """
    (run, result), records = finished_training(folder), read_metrics(folder / METRICS_FILE)
    layout = Layout.of(run.config)
    rates = [one["mfu"] for one in records if "mfu" in one]
    reserved = [one["system"].get("memory_reserved_gib", 0) * GIB for one in records if "system" in one]
    return {
        "model": f"{result.model_name} {result.flavor}",
        "parameters": result.parameters,
        "devices": f"{layout.processes} × {_device(run)}",
        "techniques": list(_techniques(run.config, layout)),
        "seq_len": layout.seq_len,
        "batch": layout.batch,
        "steps": result.step,
        "tokens_per_second": result.tokens_per_second / layout.processes if result.tokens_per_second else None,
        "mfu": median(rates) if rates else None,
        "memory_bytes": round(max(reserved, default=0)) or result.peak_memory_bytes or None,
        "loss": result.loss,
        "torch": result.versions.get("torch"),
    }


def markdown_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of :func:`benchmark_row` as a table in markdown."""
    lines = [[head for head, _ in COLUMNS.values()], ["---"] * len(COLUMNS)]
    for row in rows:
        lines.append([UNKNOWN if row[key] is None else write(row[key]) for key, (_, write) in COLUMNS.items()])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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
