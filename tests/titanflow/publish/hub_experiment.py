"""The tiny experiment with a tokenizer and weights that lie on the local Hub, of a model of some kilobytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from hub_storage import Blob, Repo
from local_hub import LocalHub
from tiny_experiment import EXPERIMENT, write_tiny_experiment

from titanflow.data.tokenizer.tokenizer import train_tokenizer

REPO = "owner/model"
MODEL = {"name": "qwen3", "flavor": "debugmodel", "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
MODEL |= {"head_dim": 16, "hidden_dim": 96, "vocab_size": 320}
CONFIG = {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "vocab_size": 320}
CONFIG |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
CONFIG |= {"rope_theta": 1_000_000, "tie_word_embeddings": True, "max_position_embeddings": 64}


def write_experiment(root: Path) -> Path:
    """The tiny experiment's folder of configs, its model one whose weights transformers could have saved."""
    configs = write_tiny_experiment(root)
    (configs / "models" / "tiny.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    return configs


def only(configs: Path, *modules: str) -> str:
    """The tiny experiment with these modules alone, as ``alone``; its name."""
    whole = yaml.safe_load(EXPERIMENT.format(root=configs.parent))
    kept = {name: whole["modules"][name] for name in modules}
    text = yaml.safe_dump({**whole, "exp_name": "alone", "modules": kept}, sort_keys=False)
    (configs / "experiments" / "alone.yaml").write_text(text)
    return "alone"


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of the tiny experiment's own text."""
    train_tokenizer(["The stone is red. I saw 1 of them.\n"] * 20, 300, folder)
    return folder


def upload(hub: LocalHub, tokenizer: Path | None, **files: bytes) -> Repo:
    """A repository with a tokenizer, and files by their name with ``__`` for the dot."""
    repo = hub.repos.setdefault(REPO, Repo(private=False))
    blobs = {path.name: Blob(path.read_bytes()) for path in (tokenizer.iterdir() if tokenizer else ())}
    blobs |= {"README.md": Blob(b"# A model"), "config.json": Blob(json.dumps(CONFIG).encode())}
    blobs["model.safetensors"] = Blob(b"weights", lfs=True)
    blobs |= {name.replace("__", "."): Blob(data) for name, data in files.items()}
    repo.commit("main", "a model", blobs)
    return repo


def forget(cache: Path) -> None:
    """The cache of another machine, or of one that was tidied up."""
    shutil.rmtree(cache, ignore_errors=True)
