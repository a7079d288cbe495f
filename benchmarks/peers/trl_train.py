"""TRL's trainers for comparison: ``python benchmarks/peers/trl_train.py SETTINGS.json`` trains until it is ended.

The settings have ``trainer`` (sft or dpo), ``model``, ``data`` (JSON lines), ``records`` (a line a step is written
there), ``config`` (arguments of TRL's config) and ``lora`` (arguments of PEFT's, or null).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def trained(trainer: type, work: Any, records: Path) -> type:
    """The trainer with a record of each step: when it ended, the work in it, and its loss."""
    from transformers import TrainerCallback

    class Recorded(trainer):  # type: ignore[misc,valid-type]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **options: Any) -> Any:
            self.work_of_step = work(inputs)
            loss = super().compute_loss(model, inputs, *more, **options)
            self.loss_of_step = (loss[0] if isinstance(loss, tuple) else loss).detach()
            return loss

    class Record(TrainerCallback):
        def __init__(self) -> None:
            self.file = records.open("w", encoding="utf-8")
            self.trainer: Any = None

        def on_step_end(self, *unused: Any, **more: Any) -> None:
            found = {"work": self.trainer.work_of_step, "loss": float(self.trainer.loss_of_step)}
            self.file.write(json.dumps({"seconds": time.perf_counter(), **found}) + "\n")
            self.file.flush()

    Recorded.record = Record  # type: ignore[attr-defined]
    return Recorded


def trained_labels(inputs: dict[str, Any]) -> int:
    """Tokens that have a label."""
    return int((inputs["labels"] != -100).sum())


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    rows_a_step = settings["config"]["per_device_train_batch_size"]
    config, trainer, work = {
        "sft": (SFTConfig, SFTTrainer, trained_labels),
        "dpo": (DPOConfig, DPOTrainer, lambda inputs: rows_a_step),
    }[settings["trainer"]]
    records = Path(settings["records"])
    recorded = trained(trainer, work, records)
    lora = None
    if settings["lora"]:
        from peft import LoraConfig

        lora = LoraConfig(**settings["lora"])
    made = recorded(
        model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype="float32"),
        args=config(
            output_dir=str(records.parent / "output"),
            max_steps=10**6,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
            **settings["config"],
        ),
        train_dataset=load_dataset(
            "json", data_files=settings["data"], split="train", cache_dir=str(records.parent / "cache")
        ),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=lora,
    )
    callback = recorded.record()  # type: ignore[attr-defined]
    callback.trainer = made
    made.add_callback(callback)
    made.train()


if __name__ == "__main__":
    main()
