"""A served machine for the deployments' tests, and an experiment small enough to run on it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from watching import alive, wait_for

from flows.server import api_url, free_port

# A model of two layers on a text of its own, through the real torchtitan.
EXPERIMENT = """\
exp_name: tiny
workspace: {workspace}
modules:
  pretrain:
    framework: torchtitan
    config: pretrain.yaml
    model: tiny.yaml
    overrides:
      data: {{kind: text, path: {text}}}
      training: {{seq_len: 32, local_batch_size: 2, global_batch_size: 2, steps: 5, mixed_precision_param: float32}}
      activation_checkpoint: {{mode: none}}
      metrics: {{log_freq: 1, enable_wandb: false}}
"""
MODULE = """\
job: {description: pretrain}
checkpoint: {enable: true, interval: 1000, last_save_model_only: false}
"""
MODEL = """\
model: {name: llama3, flavor: debugmodel, dim: 32, n_layers: 2, n_heads: 2, vocab_size: 300}
"""


@pytest.fixture(scope="session")
def tiny_configs(tmp_path_factory) -> Path:
    """A tree of configs whose experiment ``tiny`` runs in seconds; its workspace is ``runs`` beside it."""
    root = tmp_path_factory.mktemp("tiny")
    text = root / "text.txt"
    text.write_text("".join(f"line {number} of a text that nobody has to read\n" for number in range(2000)))
    files = {
        "experiments/tiny.yaml": EXPERIMENT.format(workspace=root / "runs", text=text),
        "modules/pretrain.yaml": MODULE,
        "models/tiny.yaml": MODEL,
    }
    for name, content in files.items():
        path = root / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root / "configs"


@dataclass
class Served:
    """A running ``deployments.serve``."""

    process: subprocess.Popen
    url: str
    output: Path
    home: Path

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Prefect's command line against it."""
        command = [sys.executable, "-m", "prefect", *arguments]
        env = {**os.environ, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)

    def stop(self) -> list[psutil.Process]:
        """Stops it as a terminal or an init system does; returns what it had started and left behind."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)
        return [process for process in family if alive(process.pid)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    home = tmp_path_factory.mktemp("served")
    port = free_port()
    output = home / "output"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.serve", "--port", str(port)],
            env={**env, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    served = Served(process, api_url(port), output, home)
    try:
        wait_for(lambda: process.poll() is not None or "^C" in output.read_text(), "the server", patience=180)
        assert process.poll() is None, output.read_text()
        with temporary_settings({PREFECT_API_URL: served.url}):
            yield served
    finally:
        if process.poll() is None:
            served.stop()
