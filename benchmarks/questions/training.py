"""Pretraining against plain torchtitan, its own `torchrun` program with no more patched than a CPU needs: the same
model (`llama3`, `debugmodel`, 6 M parameters), text, tokenizer, settings and precision, and a record of each step on
both sides. Here each step's tokens, losses, statistics and checkpoints are kept track of; the question is what that
costs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, Limit, Wanted
from frame.inputs import write_corpus, write_tokenizer
from frame.stage import DEBUG_MODEL, ENDLESS, merged, peer_steps, rows_a_step, training_side
from frame.trainings import Side, in_turns

PLAIN = Path(__file__).parents[1] / "plain_torchtitan.py"
ROWS, SEQ_LEN, VOCAB = 8, 256, 2048
WEIGHTS = 6_000_000
SECTIONS: dict[str, dict[str, Any]] = {
    "model": {"name": "llama3", "flavor": "debugmodel"},
    "training": {"seq_len": SEQ_LEN, "local_batch_size": ROWS, "mixed_precision_param": "float32"},
    "lr_scheduler": {"warmup_steps": 5},
    "activation_checkpoint": {"mode": "none"},
    "debug": {"seed": 1},
}
"""What both sides are given."""


def measure(bench: Bench) -> None:
    tokenizer = write_tokenizer(bench.folder / "tokenizer", vocab=VOCAB)
    text = write_corpus(bench.folder / "text.jsonl", 0.5 if bench.toy else 4)
    ours = own_side(text, tokenizer, bench.folder / "ours")
    plain = plain_side(text, tokenizer, bench.folder / "plain")
    # Shorter windows than elsewhere and more of them: what is looked for is a hundredth.
    own, other = in_turns([ours, plain], bench.pairs * 2, bench.window / 2)
    steps = min(len(own.losses), len(other.losses))
    last = [mean(side.losses[steps - max(1, steps // 5) : steps]) for side in (own, other)]
    limit = Limit("matrix products", bench.limits["matmul_float32"] / (6 * WEIGHTS)) if bench.limits else None
    bench.found(
        Figure(
            what="pretraining, float32",
            unit="tokens/s",
            ours=[SEQ_LEN * rate for rate in own.rates],
            theirs=[SEQ_LEN * rate for rate in other.rates],
            peer="torchtitan",
            wanted=Wanted("ratio", ">=", 0.99),
            limit=limit,
            memory=(own.megabytes, other.megabytes),
            note=f"mean loss of the last fifth of {steps} steps {last[0]:.3f}, of torchtitan {last[1]:.3f}; "
            "each has its own order",
        )
    )


def own_side(text: Path, tokenizer: Path, workspace: Path) -> Side:
    """This project's side."""
    overrides = merged(SECTIONS, {"tokenizer": {"path": str(tokenizer)}})
    module = {"data": {"kind": "text", "path": str(text)}, "model": DEBUG_MODEL, "overrides": overrides}
    return training_side("pretrain", module, workspace, "training", rows_a_step(ROWS))


def plain_side(text: Path, tokenizer: Path, folder: Path) -> Side:
    """torchtitan's side, which tokenises as it trains."""
    folder.mkdir(parents=True)
    records = folder / "records.jsonl"
    own = {
        "job": {"dump_folder": str(folder)},
        "comm": {"trace_buf_size": 0},
        "model": {"hf_assets_path": str(tokenizer)},
        "training": {"steps": ENDLESS, "dataset": "plain_text"},
        "metrics": {"log_freq": 1},
    }
    lines = [
        line
        for name, values in merged(SECTIONS, own).items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    ]
    (folder / "config.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", str(PLAIN)]
    env = {"PLAIN_TEXT": str(text), "PLAIN_RECORDS": str(records), "HF_HOME": str(folder / "hf")}
    env |= {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    command += [f"--job.config_file={folder / 'config.toml'}", "--metrics.disable_color_printing"]
    return Side("torchtitan", command, records, lambda found: peer_steps([{**one, "work": ROWS} for one in found]), env)
