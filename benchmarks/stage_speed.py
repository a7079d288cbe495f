"""Tokens per second of a stage against plain torchtitan: same model, same text, same machine, in turns.

``python benchmarks/stage_speed.py [--steps 30] [--pairs 4] [--ranks 1]`` prints a line a pair and the median ratio.
Each run's figure is its fastest logged interval after the first two, so that what other processes take of the
machine counts for neither side; the order within a pair alternates.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.prepared import write_rows
from titanflow.runs.contract import PreparedData, StageRun

TARGET = 0.97
VOCAB = 2048
LOG_FREQ = 5
WARM_UP = 2
END_OF_TEXT = "<|endoftext|>"


def write_text(folder: Path, megabytes: float = 2.0) -> Path:
    """The interpreter's own standard library, a module a line."""
    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    documents = [source.read_text(errors="replace") for source in sources]
    while sum(map(len, documents)) > megabytes * 1e6:
        documents.pop()
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return path


def documents_of(text: Path) -> list[str]:
    """The documents of the file that :func:`write_text` wrote."""
    return [json.loads(line)["text"] for line in text.read_text().splitlines()]


def train_tokenizer(text: Path, folder: Path) -> Tokenizer:
    """A byte-level BPE of the debug model's vocabulary, saved where both sides look for it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END_OF_TEXT], show_progress=False)
    tokenizer.train_from_iterator(documents_of(text), trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
    return tokenizer


def prepare(text: Path, tokenizer: Tokenizer, folder: Path) -> Path:
    """The text as a stage reads it."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    documents = [np.array([*tokenizer.encode(one).ids, end], dtype=np.uint16) for one in documents_of(text)]
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    total = int(lengths.sum())
    folder.mkdir()
    info = DatasetInfo(
        kind="text",
        name="benchmark",
        fingerprint="",
        documents=len(documents),
        tokens=total,
        trained_tokens=total,
        bytes=text.stat().st_size,
        dtype="uint16",
        vocab_size=VOCAB,
        pad_id=0,
    )
    write_rows(folder, info, documents, lengths)
    return folder


def sections(steps: int, tokenizer: Path) -> dict[str, dict[str, Any]]:
    """What both sides are given."""
    return {
        "model": {"name": "llama3", "flavor": "debugmodel", "hf_assets_path": str(tokenizer)},
        "training": {"steps": steps, "seq_len": 128, "local_batch_size": 8, "mixed_precision_param": "float32"},
        "lr_scheduler": {"warmup_steps": 5},
        "metrics": {"log_freq": LOG_FREQ},
        "activation_checkpoint": {"mode": "none"},
        "debug": {"seed": 1},
    }


def run_stage(folder: Path, config: dict[str, Any], data: Path, ranks: int) -> float:
    """Tokens per second on all ranks through ``titan.train.train``."""
    run = StageRun(
        stage="pretrain",
        experiment="speed",
        run="speed",
        folder=folder,
        config={**config, "checkpoint": {"interval": config["training"]["steps"]}},
        data=PreparedData(train=data),
    )
    torchrun(["-m", "titan.train.train", str(run.write())], folder, ranks)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return max(record["tokens_per_second"] for record in records[WARM_UP:])


def run_plain(folder: Path, config: dict[str, Any], text: Path, ranks: int) -> float:
    """Tokens per second on all ranks through torchtitan's own ``main``."""
    folder.mkdir(parents=True)
    sections = {**config, "job": {"dump_folder": str(folder)}, "comm": {"trace_buf_size": 0}}
    sections["training"] = {**config["training"], "dataset": "plain_text"}
    lines = [
        line
        for name, values in sections.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    ]
    (folder / "config.toml").write_text("\n".join(lines))
    script = Path(__file__).with_name("plain_torchtitan.py")
    arguments = [str(script), f"--job.config_file={folder / 'config.toml'}", "--metrics.disable_color_printing"]
    log = torchrun(arguments, folder, ranks, PLAIN_TEXT=str(text))
    # torchtitan logs a rank's rate, and each rank logs its own.
    rates = [float(rate.replace(",", "")) for rate in re.findall(r"tps: ([\d,]+)", log)]
    return ranks * max(rates[WARM_UP * ranks :])


def torchrun(arguments: list[str], folder: Path, ranks: int, **env: str) -> str:
    """Runs a command on ``ranks`` processes of this machine; its output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", *arguments]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // ranks, 1))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "HF_HOME": str(folder / "hf"), **env}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="titanflow-speed-") as place:
        root = Path(place)
        text = write_text(root)
        tokenizer = train_tokenizer(text, root / "tokenizer")
        data = prepare(text, tokenizer, root / "data")
        config = sections(arguments.steps, root / "tokenizer")
        ratios = []
        for pair in range(arguments.pairs):
            rates = {}
            for side in ("stage", "plain") if pair % 2 == 0 else ("plain", "stage"):
                folder = root / f"{side}-{pair}"
                if side == "stage":
                    rates[side] = run_stage(folder, config, data, arguments.ranks)
                else:
                    rates[side] = run_plain(folder, config, text, arguments.ranks)
            ratios.append(rates["stage"] / rates["plain"])
            print(
                f"titan.train.train {rates['stage']:,.0f} tokens/s, torchtitan {rates['plain']:,.0f}: {ratios[-1]:.3f}"
            )
        ratio = median(ratios)
        print(f"median ratio {ratio:.3f} (target {TARGET}): {'met' if ratio >= TARGET else 'missed'}")
        sys.exit(0 if ratio >= TARGET else 1)


if __name__ == "__main__":
    main()
