"""TRL's own preference trainer for pairs that are tokens already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

OPTIONS = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}


def trls_trainer(folder: Path, model: Any, reference: Any, tokenizer: Any, **more: Any) -> Any:
    """A ``DPOTrainer`` of a model, whose reference is None for the model without the adapters that it gets."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    settings = DPOConfig(output_dir=str(folder), **OPTIONS)
    return DPOTrainer(model, reference, settings, train_dataset=rows, processing_class=tokenizer, **more)


def collated(pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pairs of ``prompt_ids``, ``chosen_ids`` and ``rejected_ids`` as TRL batches them."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    batch: dict[str, torch.Tensor] = DataCollatorForPreference(pad_token_id=0)(pairs)
    return batch
