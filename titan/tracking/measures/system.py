"""Memory, and the time that waiting for batches takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # An evaluation knows the names, too, and needs no torchtitan.
    from torchtitan.components.metrics import MetricsProcessor

METRICS = {
    "memory_active_gib": ("GiB", "peak of allocated memory, of one rank"),
    "memory_reserved_gib": ("GiB", "peak of reserved memory"),
    "data_loading_percent": ("%", "time that waiting for batches took"),
}


def measure(stage: MetricsProcessor) -> dict[str, float]:
    memory = stage.device_memory_monitor.get_peak_stats()
    elapsed = time.perf_counter() - stage.time_last_log
    return {
        "memory_active_gib": memory.max_active_gib,
        "memory_reserved_gib": memory.max_reserved_gib,
        "data_loading_percent": 100 * sum(stage.data_loading_times) / elapsed,
    }
