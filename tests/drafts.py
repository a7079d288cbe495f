"""Drafts of experiments, made in the current folder, and bases for them."""

import json
import os
from pathlib import Path
from typing import Any

from qwen2_repository import CONFIG, TINY, write_tokenizer

from titanflow.config.experiment import Experiment, load_experiment
from titanflow.draft.draft import Asked, Draft
from titanflow.draft.fitting import fitting
from titanflow.planning.forecast.device import DeviceSpec

GIB = 1 << 30
CPU = DeviceSpec("cpu", "a CPU × 2", 16 * GIB, 2)


def write_base(folder: Path, **config: Any) -> str:
    """A folder that a plan takes for a model; its weights are empty, since a plan reads none."""
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **TINY, **config}), encoding="utf-8")
    (folder / "model.safetensors").touch()
    return str(folder)


def drafted(text: str) -> Experiment:
    """The experiment that a draft's text makes, as a command loads it."""
    Path("my.yaml").write_text(text, encoding="utf-8")
    return load_experiment("my", starts=False)


def draft(**asked: Any) -> tuple[Draft, Experiment, str]:
    files = {key: [os.path.relpath(asked.pop(key))] for key in ("text", "chats") if key in asked}
    made = Draft.of(Asked("my", **files, **asked))
    text = fitting(made)
    return made, drafted(text), text
