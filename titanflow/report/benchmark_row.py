"""A finished training's speed and memory as a row of a markdown table: for a family's README, or beside another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from titanflow.common.quantities import GIB, short, size
from titanflow.plan.forecast.layout import Layout
from titanflow.run.contract import METRICS_FILE, StageRun
from titanflow.run.finished_training import finished_training
from titanflow.run.manifest import Manifest
from titanflow.run.metrics import read_metrics

COLUMNS = (
    *("model", "parameters", "devices", "techniques", "tokens a row", "rows a step", "steps"),
    *("tokens/s a device", "MFU", "memory a rank", "loss", "torch"),
)
UNKNOWN = "–"


@dataclass(frozen=True)
class BenchmarkRow:
    """One finished training stage; None stands for what isn't known.

    ``seq_len`` is in tokens, ``batch`` in rows of a step on all ranks. ``tokens_per_second`` (of one device) and
    ``mfu`` (percent) are medians of the logged steps; ``mfu`` needs the device's peak. ``memory_bytes`` is the peak
    that a rank reserved on its device; on a CPU it is that of the first rank's process.
    """

    model: str
    parameters: int
    processes: int
    device: str
    techniques: list[str]
    seq_len: int
    batch: int
    steps: int
    tokens_per_second: float | None
    mfu: float | None
    memory_bytes: int | None
    loss: float | None
    torch: str | None

    @classmethod
    def of(cls, folder: Path) -> BenchmarkRow:
        """The row of a training stage's folder.

        Raises:
            DataError: the folder is no finished training stage's.
        """
        (run, result), records = finished_training(folder), read_metrics(folder / METRICS_FILE)
        layout = Layout.of(run.config)
        rates = [one["mfu"] for one in records if "mfu" in one]
        reserved = [one["system"].get("memory_reserved_gib", 0) * GIB for one in records if "system" in one]
        return cls(
            model=f"{result.model_name} {result.flavor}",
            parameters=result.parameters,
            processes=layout.processes,
            device=_device(run),
            techniques=list(_techniques(run.config, layout)),
            seq_len=layout.seq_len,
            batch=layout.batch,
            steps=result.step,
            tokens_per_second=result.tokens_per_second / layout.processes if result.tokens_per_second else None,
            mfu=median(rates) if rates else None,
            memory_bytes=round(max(reserved, default=0)) or result.peak_memory_bytes or None,
            loss=result.loss,
            torch=result.versions.get("torch"),
        )

    def cells(self) -> list[str]:
        """The row as text, one for each of :data:`COLUMNS`."""
        return [
            self.model,
            short(self.parameters),
            f"{self.processes} × {self.device}",
            ", ".join(self.techniques),
            f"{self.seq_len:,}",
            f"{self.batch:,}",
            f"{self.steps:,}",
            UNKNOWN if self.tokens_per_second is None else f"{self.tokens_per_second:,.0f}",
            UNKNOWN if self.mfu is None else f"{self.mfu:.1f} %",
            UNKNOWN if self.memory_bytes is None else size(self.memory_bytes),
            UNKNOWN if self.loss is None else f"{self.loss:.3f}",
            self.torch or UNKNOWN,
        ]


def markdown_table(rows: Iterable[BenchmarkRow]) -> str:
    """The rows as a table in markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
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
