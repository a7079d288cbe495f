"""From a user's own files to a published model, with two commands in an empty folder and no file written by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

from own_files import dialogues, odd_csv

SHORT = (
    *("pretrain.training.steps=6", "sft.training.steps=6", "pretrain.validation.freq=6", "sft.validation.freq=6"),
    *("pretrain.metrics.enable_wandb=false", "sft.metrics.enable_wandb=false", "evaluate.wandb=false"),
    *("pretrain.lr_scheduler.warmup_steps=1", "sft.lr_scheduler.warmup_steps=1"),
)


def titanflow(folder: Path, home: Path, api: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": api, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "titanflow.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ)
    assert done.returncode == 0, done.stderr
    return done


def test_two_commands(tmp_path: Path, prefect_home: Path, api: str) -> None:
    text, chats = odd_csv(tmp_path), dialogues(tmp_path)
    titanflow(tmp_path, prefect_home, api, "init", "my", "--text", text.name, "--chats", chats.name)
    settings = [part for setting in SHORT for part in ("--set", setting)]
    done = titanflow(tmp_path, prefect_home, api, "run", "my", *settings)
    assert "Published" in done.stdout
    run = tmp_path / "runs" / "my" / "main"
    scores = json.loads((run / "evaluate" / "result.json").read_text(encoding="utf-8"))["scores"]
    assert {name: set(tasks["held_out_chats"]) >= {"bits_per_byte"} for name, tasks in scores.items()} == {
        "base": True,
        "sft": True,
    }
    # The held-out conversations stay here.
    assert not (run / "publish" / "model" / "evals" / "data").exists()
    assert (run / "publish" / "model" / "model.safetensors").is_file()
