"""Fixtures of the training part; runs that several test files look at are made once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_stages import (
    LONG,
    Workbench,
    closing,
    kill_family,
    last_step,
    wait_for,
    write_chat_rows,
    write_text_rows,
    write_tokenizer,
)

from titan.patches import apply_patches
from titanflow.runs.contract import StageRun
from titanflow.runs.metrics import RECORD_BATCHES

# Chats and templates that their tests are made of.
sys.path.append(str(Path(__file__).parent.parent / "titanflow" / "data"))
apply_patches(["late_compile", "late_datasets", "cpu_device", "peak_flops"])


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_text_rows(folder / "train", 20_000, seed=0)
    write_text_rows(folder / "validation", 1_500, seed=1)
    write_chat_rows(folder / "chats", 60, seed=2)
    write_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture
def bench(tmp_path: Path, shared_data: Path) -> Workbench:
    return Workbench(tmp_path, shared_data)


@pytest.fixture(scope="session")
def shared_bench(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Workbench:
    return Workbench(tmp_path_factory.mktemp("runs"), shared_data)


@pytest.fixture(scope="session")
def uninterrupted(shared_bench: Workbench) -> StageRun:
    """One process, validation, W&B offline: what the others are compared with."""
    settings = {
        "validation": {"enable": True, "freq": 100, "local_batch_size": 4},
        "metrics": {"enable_wandb": True},
    }
    run = shared_bench.stage("uninterrupted", LONG, settings, tokenizer=shared_bench.data / "tokenizer")
    environment = {RECORD_BATCHES: "1"}
    assert shared_bench.run_process(run, ranks=1, env=environment) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.fixture(scope="session")
def killed(shared_bench: Workbench) -> StageRun:
    """As above with every tracker, killed by SIGKILL past a checkpoint, with all that it started, and run again.

    Its checkpoints are saved in the background.
    """
    settings = {
        "validation": {"enable": True, "freq": 100, "local_batch_size": 4},
        "metrics": dict.fromkeys((f"enable_{name}" for name in ("wandb", "tensorboard", "trackio", "mlflow")), True),
        "checkpoint": {"async_mode": "async"},
    }
    # Three folders deep, as in a workspace, where the trackers' stores lie.
    run = shared_bench.stage("workspace/test/test/killed", LONG, settings)
    with closing(shared_bench.start(run, ranks=1)) as process:
        wait_for(lambda: last_step(run) > 60, process)
        kill_family(process)
    shutil.copyfile(run.folder / "metrics.jsonl", run.folder / "metrics-when-killed.jsonl")
    assert shared_bench.run(run) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[StageRun], StageRun]:
    """Copies a stage to a folder of its own, so that a test may go on from it."""

    def copy(run: StageRun) -> StageRun:
        moved = run.model_copy(update={"folder": tmp_path / f"copy-{run.folder.name}"}, deep=True)
        shutil.copytree(run.folder, moved.folder)
        moved.write()
        return moved

    return copy
