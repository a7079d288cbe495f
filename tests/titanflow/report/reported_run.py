"""The folder of a run as its stages leave it, with text in it that would be markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from finished_stage import evaluate_result, finish_training

from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.prepared import write_rows
from titanflow.data.tokenizer.tokenizer import load_tokenizer, train_tokenizer
from titanflow.runs.contract import StageRun
from titanflow.runs.results import (
    Comparison,
    EvaluateResult,
    GateDecision,
    PublishResult,
    Threshold,
    write_result,
)

EVIL = '<script>alert("1")</script> | `rm` <img src=x onerror=alert(1)> http://evil.example/'
QUESTION = "<|im_start|>user\nIs it <b>red</b>?<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "It is <i>red</i>.<|im_end|>"


def write_run(folder: Path) -> Path:
    """A run whose stages are all finished."""
    stages = ["prepare", "pretrain", "sft", "evaluate", "publish"]
    write_plan(folder, stages)
    write_manifest(folder, stages)
    write_json(folder / "prepare" / "result.json", {"kind": "prepare", "datasets": {}, "seconds": 3.5})
    for stage in ("pretrain", "sft"):
        write_training(folder, stage)
    write_chats(folder)
    write_result(folder / "evaluate", evaluation())
    write_result(folder / "publish", publication())
    return folder


def write_plan(folder: Path, stages: list[str]) -> None:
    planned = [
        {
            "stage": stage,
            "state": "RUN",
            "reason": "new",
            "fingerprint": f"{stage}-fingerprint",
            "command": ["python", "-m", f"titan.{stage}"],
        }
        for stage in stages
    ]
    write_json(folder / "plan.json", {"experiment": "tiny", "run": "main", "stages": planned})


def write_manifest(folder: Path, finished: list[str]) -> None:
    records: dict[str, dict[str, Any]] = {
        stage: {
            "fingerprint": f"{stage}-fingerprint",
            "started": f"2026-11-21T09:0{minute}:00+00:00",
            "finished": f"2026-11-21T09:0{minute}:{10 * (minute + 1)}+00:00",
            "digest": f"{stage}-digest",
            "parents": {"prepare": "prepare-digest"},
            "trackers": {"wandb": {"id": f"{stage}-wandb"}},
        }
        for minute, stage in enumerate(finished)
    }
    if "pretrain" in records:
        records["pretrain"] |= {"forecast": {"seconds": 25.0, "source": "measured on run before"}}
    versions = {"torch": "2.13.0", "torchtitan": "0.2.2"}
    write_json(
        folder / "manifest.json",
        {"experiment": "tiny", "run": "main", "git": "81dde1c8", "versions": versions, "stages": records},
    )


def write_training(folder: Path, stage: str, **changes: Any) -> None:
    """A training stage's result and metrics."""
    records: list[dict[str, Any]] = [
        {
            "step": step,
            "loss": 8 / step,
            "learning_rate": 1e-3 / step,
            "grad_norm": 1.0,
            "tokens_per_second": 1000 + step,
        }
        for step in range(1, 9)
    ]
    records.append({"step": 8, "validation_loss": 1.25})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    values: dict[str, Any] = {
        "stage": stage,
        "step": 8,
        "flavor": "demo",
        "model_args": {"dim": 32},
        "parameters": 2_300_000,
        "first_loss": 8.0,
        "loss": 1.0,
        "validation_loss": 1.25,
        "tokens": 4_096,
        "seconds": 9.0,
        "seq_len": 48,
        "export_digests": {"model.safetensors": f"{stage}-sha"},
        "parity": {"relative_error": 1.25e-7},
    }
    if stage == "sft":
        values["inheritance"] = [
            {"key": "optimizer.lr", "how": "changed", "base": "0.001", "here": "0.0001", "origin": EVIL},
            {"key": "debug.seed", "how": "kept", "base": "7", "here": "7"},
            {"key": "model.dim", "how": "inherited", "base": "32", "here": "32", "origin": "pretrain"},
        ]
    finish_training(folder / stage, **(values | changes))
    (folder / stage / "metrics.jsonl").write_text(lines)


def write_chats(folder: Path) -> None:
    """The sft's prepared conversations, one of them, and its tokenizer."""
    tokenizer, rows = folder.parent / "tokenizer", folder.parent / "chats"
    tokenizer.mkdir()
    rows.mkdir()
    train_tokenizer([QUESTION, ANSWER], 280, tokenizer)
    encode = load_tokenizer(tokenizer).backend.encode
    asked, answered = (encode(text, add_special_tokens=False).ids for text in (QUESTION, ANSWER))
    tokens, trained = np.array(asked + answered), np.array([False] * len(asked) + [True] * len(answered))
    info = DatasetInfo(
        **{"kind": "chat", "name": "chats", "fingerprint": "f", "documents": 1, "tokens": len(tokens)},
        **{"trained_tokens": len(answered), "bytes": 100, "dtype": "uint16", "vocab_size": 280, "pad_id": 3},
        **{"rows": 1, "seq_len": len(tokens), "dropped": {"too_long": 2}, "ends_of_turn": [2]},
        files=[
            {
                **{"name": "/home/someone/chats.jsonl", "unit": "line", "rows": 3, "documents": 1, "bytes": 100},
                **{"dropped": {"too_long": 2}, "elsewhere": {}},
            }
        ],
    )
    lengths, places = np.array([len(tokens)]), np.array([[0, 1]])
    write_rows(rows, info, [tokens], lengths, [trained], places)
    run = {"stage": "sft", "experiment": "tiny", "run": "main", "folder": folder / "sft", "tokenizer": tokenizer}
    StageRun(**run, data={"train": rows}).write()


def evaluation(**changes: Any) -> EvaluateResult:
    """Two models' scores, and answers that hold markup."""
    scores = {
        "base": {"colour": {"acc": 0.5, "acc_stderr": 0.02}, "text": {"bits_per_byte": 2.61}},
        "sft": {"colour": {"acc": 0.9, "acc_stderr": 0.01}, "text": {"bits_per_byte": 2.72}},
    }
    values: dict[str, Any] = {
        "scores": scores,
        "samples": {"colour": 400, "text": 60},
        "n_shot": {"colour": 2},
        "task_versions": {"colour": "1.0"},
        "higher_is_better": {"colour": {"acc": True}, "text": {"bits_per_byte": False}},
        "examples": [{"task": "colour", "question": EVIL, "expected": "red", "base": "a|b", "sft": EVIL}],
        "seeds": {"fewshot": 1234},
        "versions": {"lm_eval": "0.4.13"},
    }
    return evaluate_result(**(values | changes))


def publication(**changes: Any) -> PublishResult:
    """A model that the gate let pass."""
    gate = GateDecision(
        passed=True,
        reason="better on colour",
        against="run-6",
        thresholds=[Threshold(task="colour", metric="acc", value=0.9, bound=0.8, passed=True)],
        comparisons=[
            Comparison(task="colour", metric="acc", pairs=400, difference=0.05, low=0.01, high=0.09, passed=True)
        ],
    )
    values: dict[str, Any] = {"target": "folder", "location": "/published", "tag": "main", "gate": gate}
    return PublishResult(**(values | {"files": {"config.json": "config-sha"}} | changes))


def write_json(path: Path, value: Any) -> None:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
