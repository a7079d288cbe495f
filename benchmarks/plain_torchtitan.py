"""Plain torchtitan for comparison: ``torchrun benchmarks/plain_torchtitan.py --job.config_file=FILE.toml``.

Only what lets it run on a CPU at all is patched. ``PLAIN_TEXT`` names the text file that its own dataset class reads.
Where ``PLAIN_RECORDS`` is set, each line that it logs of a step is also a record of its time and loss in that file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any


def register_text() -> None:
    """Registers the text among torchtitan's datasets, read by its own class and tokenized on the fly."""
    from datasets import load_dataset
    from torchtitan.hf_datasets import DatasetConfig
    from torchtitan.hf_datasets.text_datasets import DATASETS

    def load(path: str) -> Any:
        return load_dataset("json", data_files=path, split="train")

    DATASETS["plain_text"] = DatasetConfig(os.environ["PLAIN_TEXT"], load, lambda sample: sample["text"])


class Records(logging.Filter):
    """Keeps the time and the loss of each step that is logged; torchtitan clears handlers, and leaves filters."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115, PTH123  (as long as the process)

    def filter(self, record: logging.LogRecord) -> bool:
        if found := re.search(r"step: +\d+ .*?loss: +([\d.]+)", record.getMessage()):
            self.file.write(json.dumps({"seconds": time.perf_counter(), "loss": float(found[1])}) + "\n")
            self.file.flush()
        return True


def let_fsdp_train_over_gloo() -> None:
    """FSDP's reductions as plain sums, without which it doesn't train on a CPU."""
    import dataclasses

    from titan.patches import PatchContext, apply_patches
    from titan.train.data_parallel import sum_fsdp_gradients

    def adapt(spec: Any) -> Any:
        def parallelize(*arguments: Any) -> Any:
            model = spec.parallelize_fn(*arguments)
            sum_fsdp_gradients(model)
            return model

        return dataclasses.replace(spec, parallelize_fn=parallelize)

    apply_patches(["train_spec"], PatchContext("llama3", adapt))


if __name__ == "__main__":
    from titan.patches import apply_patches

    apply_patches(["cpu_device", "peak_flops"])
    import torchtitan.train
    from torchtitan.tools import utils

    register_text()
    if utils.device_type == "cpu":
        let_fsdp_train_over_gloo()
    if "PLAIN_RECORDS" in os.environ:
        logging.getLogger().addFilter(Records(os.environ["PLAIN_RECORDS"]))
    torchtitan.train.main(torchtitan.train.Trainer)
