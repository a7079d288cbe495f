"""A small tree of configs, written as a user would."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parse_settings

FILES = {
    "modules/base.yaml": """
        metrics: {log_freq: 5}
        checkpoint: {enable: true}
        """,
    "modules/pretrain.yaml": """
        extends: [base.yaml]
        training:
          steps: 100
          local_batch_size: 32
          seq_len: 64
        """,
    "modules/sft.yaml": """
        extends: [base.yaml]
        training:
          local_batch_size: 16
          seq_len: 64
        data: {kind: chat, path: chats.jsonl}
        """,
    "models/tiny.yaml": """
        model:
          name: llama3
          flavor: debugmodel
        """,
    "experiments/exp.yaml": """
        exp_name: ${EXP_NAME:tiny}
        modules:
          pretrain:
            framework: torchtitan
            config: pretrain.yaml
            model: tiny.yaml
            overrides:
              training: {steps: 300}
            params:
              model_overrides: {model.n_layers: 2, model.dim: 64}
          sft:
            config: sft.yaml
        """,
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the tree, with the given files in place of its own; returns the experiment's path."""

    def write_tree(**replaced: str) -> Path:
        files = {**FILES, **{name.replace("__", "/") + ".yaml": text for name, text in replaced.items()}}
        for name, text in files.items():
            path = tmp_path / "configs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip("\n"))
        return tmp_path / "configs" / "experiments" / "exp.yaml"

    return write_tree


@pytest.fixture
def load() -> Callable[..., Experiment]:
    """Loads an experiment with the given settings."""

    def load_with(path: Path, *settings: str) -> Experiment:
        return load_experiment(str(path), None, parse_settings(settings))

    return load_with


@pytest.fixture
def mistakes(load: Callable[..., Experiment]) -> Callable[..., str]:
    """The message of an experiment that can't be used."""

    def message_of(path: Path, *settings: str) -> str:
        with pytest.raises(ConfigError) as raised:
            load(path, *settings)
        assert raised.value.exit_code == 2
        return str(raised.value)

    return message_of
