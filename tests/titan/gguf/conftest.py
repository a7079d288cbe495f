"""Exports of tiny models, each made once for the files that run in one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from gguf_models import MODELS, TEXT
from tiny_exports import model_at, save_checkpoint, sensitised, tiny_args

from titan.gguf.reference import Reference
from titan.gguf.vocabulary import Vocabulary
from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.data.tokenizer.words import QWEN2


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """llama.cpp takes as many threads as torch: on few cores several wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The exported folder of one of the models; each is made once."""
    from titan.export.export import export_model

    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in made:
            family, changes = MODELS[name]
            args, folder = tiny_args(family, **changes), tmp_path_factory.mktemp(name)
            train_tokenizer([TEXT] * 3, 290, folder / "tokenizer", QWEN2 if family == "qwen2" else "")
            checkpoint = save_checkpoint(sensitised(family, args), folder / "step-1")
            made[name] = export_model(model_at(checkpoint, family, args, folder / "tokenizer"), folder / "out").folder
        return made[name]

    return export


@pytest.fixture(scope="session")
def referenced(exported: Callable[[str], Path]) -> Callable[[str], Reference]:
    """What one of the models says, with few texts; each is asked once."""
    from titan.weights.hf_folder import load_folder, load_tokenizer

    made: dict[str, Reference] = {}

    def ask(name: str) -> Reference:
        if name not in made:
            folder = exported(name)
            model, _ = load_folder(folder, torch.float32)
            stops = Vocabulary.read(folder, model.config.vocab_size).stops
            reference = Reference.read(model, load_tokenizer(folder), None, stops)
            made[name] = dataclasses.replace(reference, texts=reference.texts[:150])
        return made[name]

    return ask
