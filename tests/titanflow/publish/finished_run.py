"""A run whose stages up to evaluate are finished, as publishing finds it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import finished_stage

from titanflow.architectures.remote_code import own_code
from titanflow.common.digests import folder_digests
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.publish.lineage import EvaluatedStage
from titanflow.runs.contract import StageRun
from titanflow.runs.results import EvaluateResult, TrainResult, write_result

REPO = "local/stdlib-sft"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"\x08" + bytes(range(256)) * 3,
}
CONFIG = {
    "data": {"name": "stdlib", "path": "/home/someone/secret.jsonl"},
    "optimizer": {"name": "AdamW", "lr": 3e-4},
    "training": {"local_batch_size": 8},
    "launcher": {"nproc_per_node": 2},
}


def write_export(folder: Path) -> Path:
    """An export as a training stage leaves it, with what must never be sent beside it."""
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / ".env").write_text("HF_TOKEN=hf_averysecrettoken")
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "notes.safetensors").write_bytes(b"not the model's")
    (folder / "link.txt").symlink_to("/etc/hostname")
    (folder / "sharded").mkdir()
    (folder / "sharded" / "model.safetensors").write_bytes(b"a duplicate")
    return folder


def bring_code(export: Path) -> list[str]:
    """Makes an export one of a family that transformers doesn't know; the names of its modelling files."""
    names = ["modeling_mod.py", "routed_decoder.py", "routed_tokens.py"]
    for name in names:
        shutil.copy(own_code()[name], export / name)
    auto_map = {"AutoModelForCausalLM": "modeling_mod.ModForCausalLM"}
    (export / "config.json").write_text(json.dumps({"model_type": "titanflow_mod", "auto_map": auto_map}))
    return names


@dataclass
class FinishedRun:
    """The folders of a run whose sft exported into ``sft/export``."""

    root: Path
    stages: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def write(cls, root: Path) -> FinishedRun:
        run = cls(root)
        run.train("pretrain")
        run.train("sft")
        run.evaluate()
        return run

    @property
    def export(self) -> Path:
        return self.root / "sft" / "export"

    def train(self, stage: str, **changes: Any) -> None:
        folder = self.stages[stage] = self.root / stage
        run = {"stage": stage, "experiment": "stdlib", "run": "run-7", "folder": folder, "fingerprint": f"{stage}f1"}
        base = self.stages.get({"sft": "pretrain", "prefer": "sft"}.get(stage, ""))
        StageRun(**run, config=CONFIG, base=base).write()
        write_result(folder, train_result(stage, **({"export": folder / "export"} | changes)))

    def evaluate(self, **changes: Any) -> None:
        folder = self.stages["evaluate"] = self.root / "evaluate"
        values = {
            "digests": {"base": {}, "sft": folder_digests(self.export)},
            "folders": {"base": self.root / "pretrain" / "export", "sft": self.export},
        }
        result = evaluate_result(**(values | changes))
        run = {"stage": "evaluate", "experiment": "stdlib", "run": "run-7", "folder": folder}
        StageRun(**run, config={"tasks": sorted(result.scores.get("sft", {})), "dtype": "float32"}).write()
        write_result(folder, result)

    def to_publish(self, **config: Any) -> StageRun:
        folder = self.root / "publish"
        run = {"stage": "publish", "experiment": "stdlib", "run": "run-7", "folder": folder, "stages": self.stages}
        return StageRun(**run, config={"evaluation": "evaluate", **config})


def train_result(stage: str, export: Path | None, **changes: Any) -> TrainResult:
    digests = folder_digests(export) if export and export.exists() else {"model.safetensors": f"{stage}-sha"}
    values: dict[str, Any] = {
        "stage": stage,
        "checkpoint": Path("/home/someone/checkpoint/step-120"),
        "step": 120,
        "flavor": "demo",
        "model_args": {"n_layers": 2, "dim": 32},
        "parameters": 2_300_000,
        "first_loss": 7.6,
        "loss": 2.125,
        "tokens": 3_400_000,
        "seconds": 90.2,
        "tokens_per_second": 37_700.4,
        "seq_len": 256,
        "export": export,
        "export_digests": digests,
        "parity": {"relative_error": 1.25e-7},
        "trackers": {"wandb": {"id": f"{stage}-wandb"}},
        "versions": {"torch": "2.13.0", "torchtitan": "0.2.2"},
    }
    return finished_stage.train_result(Path(), **(values | changes))


def evaluated_stage(result: EvaluateResult, folder: Path = Path("evaluate"), **config: Any) -> EvaluatedStage:
    """An evaluation, whose model is the sft, as publishing hands it on."""
    run = StageRun(stage="evaluate", experiment="stdlib", run="run-7", folder=folder, config=config)
    return EvaluatedStage(folder, run, result, "sft", AskedTasks(None))


def write_samples(folder: Path, evaluation: EvaluateResult, shift: int = 0) -> None:
    """The samples of each model and task, in lm-eval's form, from which its scores are made.

    ``shift`` moves the right answers: two models of the same accuracy then differ in which they have right.
    """
    for model, tasks in evaluation.scores.items():
        for task, scores in tasks.items():
            metric, score, count = next(iter(scores)), next(iter(scores.values())), evaluation.samples[task]
            right = {(number + shift) % count for number in range(round(score * count))}
            lines = []
            for number in range(count):
                value = float(number in right) if metric == "acc" else [-score * math.log(2) * 1000, 1000]
                hashes = {"doc_hash": f"{task} {number}", "target_hash": f"answer {number}"}
                sample = {"doc_id": number, "filter": "none", "metrics": [metric], metric: value, **hashes}
                lines.append(json.dumps(sample) + "\n")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"samples_{model}_{task}.jsonl").write_text("".join(lines))


def evaluate_result(**changes: Any) -> EvaluateResult:
    kind = {"base": {"acc": 0.55, "acc_stderr": 0.02}, "sft": {"acc": 0.93, "acc_stderr": 0.011}}
    text = {"base": {"bits_per_byte": 2.61}, "sft": {"bits_per_byte": 2.72}}
    values: dict[str, Any] = {
        "scores": {name: {"stdlib_kind": kind[name], "stdlib_text": text[name]} for name in ("base", "sft")},
        "samples": {"stdlib_kind": 400, "stdlib_text": 60},
        "n_shot": {"stdlib_kind": 2, "stdlib_text": 0},
        "task_versions": {"stdlib_kind": "1.0", "stdlib_text": "2.0"},
        "higher_is_better": {"stdlib_kind": {"acc": True}, "stdlib_text": {"bits_per_byte": False}},
        "reference": {"stdlib_bits_per_byte": 2.153},
        "versions": {"lm_eval": "0.4.13"},
    }
    return finished_stage.evaluate_result(**(values | changes))
