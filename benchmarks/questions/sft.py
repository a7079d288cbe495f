"""Fine-tuning against TRL's `SFTTrainer`: the same untrained llama of 12 M parameters and the same chats, rows of at
most 512 tokens, eight a batch. Work is counted in trained tokens, those that have a label, since both sides pad
otherwise.

"As it comes" is what either side does with nothing set but model, chats, length and batch: TRL computes in bfloat16,
unpacked and with gradient checkpointing; the rows below have the same precision and no checkpointing on both sides.
Before the rates, both train on the same eight chats in each step, and the losses of the steps are compared: equal
losses show that both do the same work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, Limit, Wanted
from frame.inputs import first_rows, write_chats, write_model, write_tokenizer
from frame.peers import trl_side
from frame.stage import merged, trained_tokens, training_side
from frame.trainings import Side, in_turns, losses_of

from titanflow.runs.contract import StageRun

SEQ_LEN, BATCH, LR = 512, 8, 2e-4
COMPARED_STEPS = 5
COMPARED = ("packed, float32", "unpacked, float32", "LoRA of rank 16, unpacked, bfloat16")
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "as it comes": ({}, 1.8),
    "packed, bfloat16": ({"packed": True, "dtype": "bfloat16"}, 2.0),
    "packed, float32": ({"packed": True, "dtype": "float32"}, 2.0),
    "unpacked, bfloat16": ({"packed": False, "dtype": "bfloat16"}, 1.2),
    "unpacked, float32": ({"packed": False, "dtype": "float32"}, 1.2),
    "LoRA of rank 16, unpacked, bfloat16": ({"packed": False, "dtype": "bfloat16", "lora": True}, 1.5),
}
"""What is set on both sides, and how many times TRL's rate is wanted."""


def measure(bench: Bench) -> None:
    tokenizer = write_tokenizer(bench.folder / "tokenizer")
    model = write_model(bench.folder / "model", tokenizer, "tiny" if bench.toy else "12M")
    chats = bench.files.get("chats") or write_chats(bench.folder / "chats.jsonl", 200 if bench.toy else 7473)
    few = first_rows(chats, bench.folder / "few.jsonl", BATCH)
    for number, (what, (given, wanted)) in enumerate(SETTINGS.items()):
        told = same_work(given, model, few, bench.folder / f"same{number}") if what in COMPARED else ""
        own = own_side(given, model, chats, bench.folder / "ours", f"setting{number}")
        peer = trls_side(given, model, chats, bench.folder / f"trl{number}")
        ours, theirs = in_turns([own, peer], bench.pairs, bench.window)
        bench.found(
            Figure(
                what=what,
                unit="trained tokens/s",
                ours=ours.rates,
                theirs=theirs.rates,
                peer="TRL",
                wanted=Wanted("ratio", ">=", wanted),
                limit=matmul_limit(bench, model, own, given),
                memory=(ours.megabytes, theirs.megabytes),
                note=told,
            )
        )


def same_work(given: dict[str, Any], model: Path, few: Path, folder: Path) -> str:
    """The losses of both on the same eight chats a step, and by how much they differ at most."""
    rows = BATCH
    if given["packed"]:
        # The eight chats are fewer rows: so many that a step is all of them.
        rows = prepared(own_side(given, model, few, folder / "ours", "same"))["rows"]
    sides = (
        own_side(given, model, few, folder / "ours", "same", rows),
        trls_side(given, model, few, folder / "trl", rows),
    )
    ours, theirs = losses_of(sides, COMPARED_STEPS)
    apart = max(abs(own - other) for own, other in zip(ours, theirs, strict=True))
    return (
        f"losses of {COMPARED_STEPS} steps on the same chats: {ours[0]:.4f} to {ours[-1]:.4f}, of TRL "
        f"{theirs[0]:.4f} to {theirs[-1]:.4f}, at most {apart:.0e} apart"
    )


def prepared(side: Side) -> dict[str, Any]:
    """What this project's training reads: rows, tokens and trained tokens."""
    run = StageRun.read(side.records.with_name("run.yaml"))
    assert run.data.train is not None
    return dict(json.loads((run.data.train / "dataset.json").read_text()))


def own_side(given: dict[str, Any], model: Path, chats: Path, workspace: Path, name: str, rows: int = BATCH) -> Side:
    """This project's side."""
    overrides: dict[str, Any] = {"training": {"seq_len": SEQ_LEN, "local_batch_size": rows}}
    if given:
        same = {
            "training": {"mixed_precision_param": given["dtype"]},
            "activation_checkpoint": {"mode": "none"},
            "optimizer": {"lr": LR, "beta2": 0.999},
            "lr_scheduler": {"warmup_steps": 0, "decay_ratio": 0.0},
        }
        lora = {"lora": {"rank": LORA["r"], "alpha": LORA["lora_alpha"]}} if given.get("lora") else {}
        overrides = merged(overrides, same, lora)
    data = {"kind": "chat", "path": str(chats), "packing": "best_fit" if given.get("packed") else None}
    return training_side(
        "sft", {"base": str(model), "data": data, "overrides": overrides}, workspace, name, trained_tokens
    )


def trls_side(given: dict[str, Any], model: Path, chats: Path, folder: Path, rows: int = BATCH) -> Side:
    """TRL's side."""
    config: dict[str, Any] = {"max_length": SEQ_LEN, "per_device_train_batch_size": rows, "assistant_only_loss": True}
    if given:
        config |= {"bf16": given["dtype"] == "bfloat16", "packing": given["packed"], "gradient_checkpointing": False}
        config |= {"learning_rate": LR, "lr_scheduler_type": "constant"}
    lora = {**LORA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} if given.get("lora") else None
    return trl_side("sft", model, chats, config, folder, lora)


def matmul_limit(bench: Bench, model: Path, own: Side, given: dict[str, Any]) -> Limit | None:
    """Trained tokens/s if nothing but the model's matrix products took time, at the measured rate of such products.

    Six operations a weight and token, forward and backward, the head's included; four where the weights are frozen and
    get no gradient. Attention and padding aren't counted; a prompt's tokens are, since trained ones need them.
    """
    if not bench.limits:
        return None
    config = json.loads((model / "config.json").read_text())
    wide, hidden = config["hidden_size"], config["intermediate_size"]
    weights = config["num_hidden_layers"] * (4 * wide**2 + 3 * wide * hidden) + wide * config["vocab_size"]
    # A machine may compute bfloat16 slower than float32, and a program may then choose the latter.
    rate = max(
        bench.limits["matmul_float32"], bench.limits["matmul_bfloat16"] if given.get("dtype") != "float32" else 0
    )
    data = prepared(own)
    trained = rate / ((4 if given.get("lora") else 6) * weights) * data["trained_tokens"] / data["tokens"]
    return Limit(f"matrix products, {rate / 1e9:.0f} GFLOP/s", trained)
