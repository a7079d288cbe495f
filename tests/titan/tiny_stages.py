"""Tiny prepared data, tokenizers and stages, and how a test runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from forked_ranks import free_port, run_forked

from titanflow.data.chat.packing import best_fit
from titanflow.runs.contract import PreparedData, StageRun

VOCAB = 256
SEQ_LEN = 32
MODEL = {"n_layers": 2, "dim": 64, "n_heads": 4, "vocab_size": VOCAB}
PATIENCE = 600.0
"""How long a hang may last: a busy machine takes minutes for what an idle one does in seconds."""


def write_text_rows(folder: Path, tokens: int, seed: int) -> Path:
    """A folder as the contract of prepared text has it: a walk through the vocabulary that a model can learn."""
    folder.mkdir(parents=True)
    steps = np.random.default_rng(seed).integers(0, 4, size=tokens)
    np.save(folder / "tokens.npy", (np.cumsum(steps) % VOCAB).astype(np.uint16))
    np.save(folder / "offsets.npy", np.array([0, tokens], dtype=np.int64))
    _write_info(folder, kind="text", documents=1, tokens=tokens, trained_tokens=tokens)
    return folder


def write_chat_rows(folder: Path, chats: int, seed: int, seq_len: int = SEQ_LEN, packed: bool = False) -> Path:
    """Chats of different lengths whose second half is trained."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    lengths = random.integers(4, seq_len + 1, size=chats)
    trained = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    tokens = random.integers(4, VOCAB, size=lengths.sum()).astype(np.uint16)
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "trained.npy", trained)
    counts = {"documents": chats, "tokens": len(tokens), "trained_tokens": int(trained.sum()), "rows": chats}
    if packed:
        members, offsets = best_fit(lengths, seq_len)
        np.save(folder / "members.npy", members)
        np.save(folder / "row_offsets.npy", offsets)
        counts["rows"] = len(offsets) - 1
    _write_info(folder, kind="chat", seq_len=seq_len, packing="best_fit" if packed else None, **counts)
    return folder


def write_pair_rows(folder: Path, pairs: int, seed: int, seq_len: int = SEQ_LEN, packed: bool = False) -> Path:
    """Pairs of two answers of different lengths to one prompt; the tokens are the same whether they are packed."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    documents, trained, splits = [], [], []
    for _ in range(pairs):
        prompt = random.integers(4, VOCAB, size=random.integers(1, seq_len // 4))
        # The tokens of chosen answers go up and those of rejected ones down, which a model can tell.
        sizes = random.integers(1, seq_len // 2, size=2)
        answers = [(random.integers(4, VOCAB) + np.arange(size)) % VOCAB for size in sizes]
        sides = [np.concatenate([prompt, answers[0]]), np.concatenate([prompt, answers[1][::-1]])]
        documents.append(np.concatenate(sides).astype(np.uint16))
        trained.append(np.concatenate([np.arange(len(side)) >= len(prompt) for side in sides]))
        splits.append(len(sides[0]))
    lengths = np.array([len(one) for one in documents])
    longer = np.maximum(splits, lengths - splits)
    np.save(folder / "tokens.npy", np.concatenate(documents))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "trained.npy", np.concatenate(trained))
    np.save(folder / "splits.npy", np.array(splits, np.int64))
    counts = {"documents": pairs, "tokens": int(lengths.sum()), "rows": pairs}
    counts["trained_tokens"] = int(np.concatenate(trained).sum())
    if packed:
        members, offsets = best_fit(longer, seq_len)
        np.save(folder / "members.npy", members)
        np.save(folder / "row_offsets.npy", offsets)
        counts["rows"] = len(offsets) - 1
    _write_info(folder, kind="pairs", seq_len=seq_len, packing="best_fit" if packed else None, **counts)
    return folder


def _write_info(folder: Path, **values: Any) -> None:
    common = {"name": folder.name, "fingerprint": "0", "bytes": 0, "dtype": "uint16", "vocab_size": VOCAB, "pad_id": 3}
    (folder / "dataset.json").write_text(json.dumps(common | values))


def write_tokenizer(folder: Path, size: int = 128) -> Path:
    """A byte-level tokenizer with the project's special tokens and no merges worth the name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 4], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
        "model_max_length": SEQ_LEN,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    return folder


def merged(*configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sections laid over one another, key by key."""
    result: dict[str, Any] = {}
    for config in configs:
        for section, values in config.items():
            result[section] = {**result.get(section, {}), **values}
    return result


BASE_CONFIG = {
    "model": {"name": "llama3", "flavor": "debugmodel"},
    "training": {
        "steps": 20,
        "seq_len": SEQ_LEN,
        "local_batch_size": 8,
        "global_batch_size": 8,
        "mixed_precision_param": "float32",
    },
    "validation": {"seq_len": SEQ_LEN},
    "optimizer": {"lr": 3e-3},
    "lr_scheduler": {"warmup_steps": 2, "total_steps": 400},
    "metrics": {"log_freq": 1},
    "checkpoint": {"interval": 25},
    "activation_checkpoint": {"mode": "none"},
    "debug": {"seed": 7},
}


STEPS = 250
LONG = {"training": {"steps": STEPS}, "checkpoint": {"keep_latest_k": 0}}
"""Long enough to be interrupted while someone watches."""


class Workbench:
    """Writes stages' ``run.yaml`` over shared data, and runs them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = data

    def stage(self, name: str, *configs: Mapping[str, Mapping[str, Any]], **fields: Any) -> StageRun:
        """A stage in a folder of its own, written; ``fields`` go to ``StageRun``."""
        defaults: dict[str, Any] = {
            "stage": "pretrain",
            "model_overrides": MODEL,
            "data": PreparedData(train=self.data / "train", validation=self.data / "validation"),
        }
        run = StageRun(
            experiment="test",
            run="test",
            folder=self.folder / name,
            config=merged(BASE_CONFIG, *configs),
            **(defaults | fields),
        )
        run.write()
        return run

    def start(self, run: StageRun, ranks: int | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Starts a stage: under torchrun with ``ranks`` processes, or for None as the only rank there is.

        ``script`` may name a file to run in place of ``titan.train.train``.
        """
        script = options.pop("script", None)
        module = [*([str(script)] if script else ["-m", "titan.train.train"]), str(run.folder / "run.yaml")]
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", f"--master_port={free_port()}"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **options.pop("env", {})}
        if ranks is None:
            env |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        with (run.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *(launcher if ranks else []), *module],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def run_process(self, run: StageRun, ranks: int | None = None, **options: Any) -> int:
        """Runs a stage to its end as :meth:`start` does; its exit status."""
        with closing(self.start(run, ranks, **options)) as process:
            return process.wait(PATIENCE)

    def run(
        self,
        run: StageRun,
        ranks: int | None = None,
        script: str = "",
        path: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Runs a stage to its end on ranks that needn't import torch first; its exit status.

        ``script`` may name a file to run in place of ``titan.train.train``, ``path`` a folder to import from.
        """
        env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **(env or {})}
        command = [*([script] if script else ["-m", "titan.train.train"]), str(run.folder / "run.yaml")]
        return run_forked(command, ranks or 1, env, run.folder / "log.txt", PATIENCE, path)


class closing:  # noqa: N801
    """A process that is not left behind, nor are its ranks, whatever the test does."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *error: object) -> None:
        kill_family(self.process)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all that it started, at once."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for member in [psutil.Process(process.pid)] if process.poll() is None else []:
        member.kill()
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Watches until ``condition`` holds; fails if the process ends before it does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the process ended before what was waited for"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def records(run: StageRun, key: str = "loss") -> dict[int, float]:
    """A stage's metric by step."""
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    values = {record["step"]: record[key] for record in found if key in record}
    assert len(values) == len([record for record in found if key in record]), "a step stands there twice"
    return values


def last_step(run: StageRun) -> int:
    """The last step in a stage's metrics, 0 before the first."""
    return max(records(run), default=0)
