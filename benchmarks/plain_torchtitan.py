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
        return load_dataset("text", data_files=path, split="train", sample_by="document")

    DATASETS["plain_text"] = DatasetConfig(os.environ["PLAIN_TEXT"], load, lambda sample: sample["text"])


if __name__ == "__main__":
    from titan.patches import apply_patches

    apply_patches(["cpu_device", "peak_flops"])
    import torchtitan.train

    register_text()
    torchtitan.train.main(torchtitan.train.Trainer)
