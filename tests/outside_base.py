"""A finished pretraining stage in a folder of its own, as another run would have left it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from titanflow.architectures.base import tokenizer_digest
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.run.contract import StageRun
from titanflow.run.results import TrainResult, write_result

SEQ_LEN = 64


def write_finished_stage(folder: Path, model: str = "llama3", flavor: str = "debugmodel", **args: Any) -> Path:
    """Writes ``result.json``, ``run.yaml``, a tokenizer and a checkpoint's folder; ``args`` go over the flavor's."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    (folder / "checkpoint" / "step-7").mkdir(parents=True)
    (folder / "checkpoint" / "step-7" / "0.distcp").write_bytes(b"weights")
    StageRun(
        stage="pretrain",
        experiment="before",
        run="main",
        folder=folder,
        config={"model": {"name": model, "flavor": flavor, "converters": []}, "training": {"seq_len": SEQ_LEN}},
        model_overrides=args,
    ).write()
    result = TrainResult(
        stage="pretrain",
        checkpoint=folder / "checkpoint" / "step-7",
        step=7,
        model_name=model,
        flavor=flavor,
        model_args={**load_snapshot()["models"][model]["flavors"][flavor], "max_seq_len": SEQ_LEN, **args},
        parameters=1,
        seq_len=SEQ_LEN,
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_digest(tokenizer),
    )
    write_result(folder, result)
    return folder
