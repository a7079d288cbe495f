"""Pretraining against plain torchtitan, its own `torchrun` program with no more patched than a CPU needs: the same
model (`llama3`, `debugmodel`, 6 M parameters), text, tokenizer, settings and precision, and a record of each step on
both sides. Here each step's tokens, losses, statistics and checkpoints are kept track of; the question is what that
costs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from frame.bench import Bench
from frame.figures import Figure, Limit, Wanted
from frame.inputs import write_corpus, write_tokenizer
from frame.stage import DEBUG_MODEL, ENDLESS, llama, matrices, merged, peer_steps, rows_a_step, training_side
from frame.trainings import Side, Step, in_turns

PLAIN = Path(__file__).parents[1] / "plain_torchtitan.py"
ROWS, SEQ_LEN, VOCAB = 8, 256, 2048
TOY = {"local_batch_size": 1, "seq_len": 64}
WEIGHTS = 6 * (4 * 256**2 + 3 * 256 * 768) + 256 * VOCAB
"""The matrices of the debug model: six layers and the head."""
SECTIONS: dict[str, dict[str, Any]] = {
    "model": {"name": "llama3", "flavor": "debugmodel"},
    "training": {"seq_len": SEQ_LEN, "local_batch_size": ROWS, "mixed_precision_param": "float32"},
    "lr_scheduler": {"warmup_steps": 5},
    "activation_checkpoint": {"mode": "none"},
    "debug": {"seed": 1},
}
"""What both sides are given."""


def measure(bench: Bench) -> None:
    text = write_corpus(bench.folder / "text.jsonl", 0.5 if bench.toy else 4)
    beside_torchtitan(bench, text)
    beside_limit(bench, text)


def beside_torchtitan(bench: Bench, text: Path) -> None:
    """Both sides in turns."""
    tokenizer = write_tokenizer(bench.folder / "tokenizer", vocab=VOCAB)
    sections = merged(SECTIONS, {"training": TOY}) if bench.toy else SECTIONS
    seq_len = sections["training"]["seq_len"]
    ours = own_side(sections, text, tokenizer, bench.folder / "ours")
    plain = plain_side(sections, text, tokenizer, bench.folder / "plain", ours.env["OMP_NUM_THREADS"])
    # Shorter windows than elsewhere and more of them: what is looked for is a hundredth.
    own, other = in_turns([ours, plain], bench.pairs * 2, bench.window / 2)
    steps = min(len(own.losses), len(other.losses))
    last = [mean(side.losses[steps - max(1, steps // 5) : steps]) for side in (own, other)]
    limit = Limit("matrix products, float32", bench.limits["matmul_float32"] / (6 * WEIGHTS))
    bench.found(
        Figure(
            what="pretraining, float32",
            unit="tokens/s",
            ours=[seq_len * rate for rate in own.rates],
            theirs=[seq_len * rate for rate in other.rates],
            peer="torchtitan",
            wanted=Wanted("ratio", ">=", 0.99),
            limit=limit,
            memory=(own.megabytes, other.megabytes),
            note=f"mean loss of the last fifth of {steps} steps {last[0]:.3f}, of torchtitan {last[1]:.3f}; "
            "each has its own order",
        )
    )


def beside_limit(bench: Bench, text: Path) -> None:
    """A larger model as it comes, alone, against what matrix products could do."""
    size, seq_len, rows = ("tiny", 64, 1) if bench.toy else ("50M", 256, 4)
    tokenizer = write_tokenizer(bench.folder / "tokenizer8192")
    training = {"seq_len": seq_len, "local_batch_size": rows}
    module = llama(size, text, tokenizer, training=training, activation_checkpoint={"mode": "none"})
    side = training_side("pretrain", module, bench.folder / "ours", "limit", rows_a_step(rows))
    (own,) = in_turns([side], bench.pairs, bench.window)
    rate = max(bench.limits["matmul_float32"], bench.limits["matmul_bfloat16"])
    bench.found(
        Figure(
            what=f"a llama of {size} parameters as it comes",
            unit="tokens/s",
            ours=[seq_len * found for found in own.rates],
            wanted=Wanted("share", ">=", 0.6),
            limit=Limit(f"matrix products, {rate / 1e9:.0f} GFLOP/s", rate / (6 * matrices(size))),
            memory=(own.megabytes,),
        )
    )


def own_side(sections: dict[str, Any], text: Path, tokenizer: Path, workspace: Path) -> Side:
    """This project's side."""
    overrides = merged(sections, {"tokenizer": {"path": str(tokenizer)}})
    module = {"data": {"kind": "text", "path": str(text)}, "model": DEBUG_MODEL, "overrides": overrides}
    return training_side(
        "pretrain", module, workspace, "training", rows_a_step(sections["training"]["local_batch_size"])
    )


def plain_side(sections: dict[str, Any], text: Path, tokenizer: Path, folder: Path, threads: str) -> Side:
    """torchtitan's side, which tokenises as it trains, with as many threads."""
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
        for name, values in merged(sections, own).items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    ]
    (folder / "config.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", str(PLAIN)]

    def steps(found: Sequence[Mapping[str, Any]]) -> list[Step]:
        return peer_steps([{**one, "work": rows} for one in found])

    rows = sections["training"]["local_batch_size"]
    env = {"PLAIN_TEXT": str(text), "PLAIN_RECORDS": str(records), "HF_HOME": str(folder / "hf")}
    env["OMP_NUM_THREADS"] = threads
    command += [f"--job.config_file={folder / 'config.toml'}", "--metrics.disable_color_printing"]
    return Side("torchtitan", command, records, steps, env)
