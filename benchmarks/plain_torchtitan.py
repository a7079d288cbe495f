"""Plain torchtitan for comparison: ``torchrun benchmarks/plain_torchtitan.py --job.config_file=FILE.toml``.

Only what lets it run on a CPU at all is patched. ``PLAIN_TEXT`` names the text file that its own dataset class reads.
"""

from __future__ import annotations

import os
from typing import Any


def register_text() -> None:
    """Registers the text among torchtitan's datasets, read by its own class and tokenized on the fly."""
    from datasets import load_dataset
    from torchtitan.hf_datasets import DatasetConfig
    from torchtitan.hf_datasets.text_datasets import DATASETS

    def load(path: str) -> Any:
        return load_dataset("json", data_files=path, split="train")

    DATASETS["plain_text"] = DatasetConfig(os.environ["PLAIN_TEXT"], load, lambda sample: sample["text"])


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
    torchtitan.train.main(torchtitan.train.Trainer)
