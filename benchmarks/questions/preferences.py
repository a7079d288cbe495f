"""Preference tuning (DPO) against TRL's `DPOTrainer`: the same untrained llama of 12 M parameters and the same pairs,
four a batch, a side of at most 512 tokens, beta 0.1, float32, without gradient checkpointing.

Here the base's log-probabilities are computed once, before the first step. TRL computes them in each step, as it
comes, or once with `precompute_ref_log_probs`; both are measured, and the time before the first step counts for
neither side. Before the rates both train on the same four pairs in each step: equal losses show that both do the same
work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frame.bench import Bench
from frame.figures import Figure
from frame.inputs import first_rows, write_model, write_pairs, write_tokenizer
from frame.peers import trl_side
from frame.stage import rows_a_step, training_side
from frame.trainings import Side, in_turns, losses_of

SEQ_LEN, PAIRS, LR, STEPS = 512, 4, 1e-5, 5


def measure(bench: Bench) -> None:
    tokenizer = write_tokenizer(bench.folder / "tokenizer")
    model = write_model(bench.folder / "model", tokenizer, "tiny" if bench.toy else "12M")
    # Few, since the base's log-probabilities of all come first.
    pairs = write_pairs(bench.folder / "pairs.jsonl", 16 if bench.toy else 160)
    few = first_rows(pairs, bench.folder / "few.jsonl", PAIRS)
    same = [own_side(model, few, bench.folder / "few", "same"), trls_side(model, few, bench.folder / "trl-few", False)]
    ours, theirs = losses_of(same, STEPS)
    apart = max(abs(own - other) for own, other in zip(ours, theirs, strict=True))
    note = f"losses of {STEPS} steps on the same pairs: {ours[0]:.4f} to {ours[-1]:.4f}, at most {apart:.0e} apart"
    for what, precomputed in (("as TRL comes", False), ("both precomputed", True)):
        own = own_side(model, pairs, bench.folder / "ours", f"precomputed{precomputed}".lower())
        peer = trls_side(model, pairs, bench.folder / f"trl-{precomputed}", precomputed)
        mine, others = in_turns([own, peer], bench.pairs, bench.window)
        bench.found(
            Figure(
                what=f"DPO, {what}",
                unit="pairs/s",
                ours=mine.rates,
                theirs=others.rates,
                peer="TRL",
                memory=(mine.megabytes, others.megabytes),
                note=note if not precomputed else "",
            )
        )


def own_side(model: Path, pairs: Path, workspace: Path, name: str) -> Side:
    """This project's side."""
    overrides: dict[str, Any] = {
        "training": {"seq_len": SEQ_LEN, "local_batch_size": PAIRS, "mixed_precision_param": "float32"},
        "activation_checkpoint": {"mode": "none"},
        "optimizer": {"lr": LR, "beta2": 0.999},
        "lr_scheduler": {"warmup_steps": 0, "decay_ratio": 0.0},
    }
    module = {"base": str(model), "data": {"kind": "pairs", "path": str(pairs)}, "overrides": overrides}
    return training_side("prefer", module, workspace, name, rows_a_step(PAIRS))


def trls_side(model: Path, pairs: Path, folder: Path, precomputed: bool) -> Side:
    """TRL's side."""
    config = {
        "max_length": SEQ_LEN,
        "per_device_train_batch_size": PAIRS,
        "gradient_checkpointing": False,
        "bf16": False,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "precompute_ref_log_probs": precomputed,
    }
    return trl_side("dpo", model, pairs, config, folder)
