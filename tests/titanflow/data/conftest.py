from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_samples import add_special_tokens

from titanflow.config.files.chat_template import template_text
from titanflow.data import fingerprints
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer, train_tokenizer
from titanflow.runs.contract import StageRun

TEXTS = [
    "The quick brown fox jumps over the lazy dog.\nIt was user and assistant of nobody.\n",
    "def read(path):\n    with open(path) as file:\n        return file.read()\n" * 3,
    "Is json.JSONDecodeError a class or a function?\nA class. Which module defines it? json.decoder\n" * 4,
    "Größe, naïve, 你好, emoji 🙂🙃 and more.\n",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 400, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> LoadedTokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def llama3_tokenizer(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedTokenizer:
    return add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("llama3"))


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *rows: Any) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def prepare_run(tmp_path: Path) -> Callable[..., StageRun]:
    """A prepare stage's run.yaml, as a planner would write it: ``data`` are data configs, the first is trained on."""

    def build(*data: dict[str, Any], vocab_size: int = 300, seq_len: int = 32, **options: Any) -> StageRun:
        workspace = tmp_path / "runs"
        train_on = options.get("train_on", data[0])
        name = options.get("template", "chatml")
        chat = {
            **{"template": template_text(name), "template_name": name, "turns": options.get("turns", "all")},
            "proof_rows": options.get("proof_rows"),
        }
        tokenizer = {"path": options.get("tokenizer")}
        trained = fingerprints.tokenizer_fingerprint(tokenizer, train_on, vocab_size)
        datasets = []
        for config in data:
            fingerprint = fingerprints.data_fingerprint(config, trained, seq_len, chat)
            datasets.append(
                {
                    "folder": str(fingerprints.prepared_folder(workspace, config, fingerprint)),
                    "kind": config.get("kind", "text"),
                    "data": config,
                    "seq_len": seq_len,
                    "chat": chat if config.get("kind") == "chat" else None,
                    "fingerprint": fingerprint,
                }
            )
        config = {
            "workspace": str(workspace),
            "launcher": {"nproc_per_node": options.get("num_proc")},
            "tokenizer": {
                "folder": str(fingerprints.tokenizer_folder(workspace, trained)),
                "path": options.get("tokenizer"),
                "vocab_size": vocab_size,
                "train_on": train_on,
            },
            "datasets": datasets,
        }
        folder = workspace / "experiment" / "run" / "prepare"
        run = StageRun(stage="prepare", experiment="experiment", run="run", folder=folder, config=config)
        run.write()
        return run

    return build
