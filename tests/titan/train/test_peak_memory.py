import dataclasses
import json

import psutil
import pytest
from tiny_stages import Workbench

from titan.process.peak_memory import peak_memory_bytes
from titan.train.job_config import build_job_config
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.architectures.weights import model_weights
from titanflow.config.keys.training import Lora
from titanflow.planning.forecast.flops import count
from titanflow.planning.forecast.memory import memory
from titanflow.runs.contract import StageRun

OVERRIDES = {"n_layers": 2, "dim": 512, "n_heads": 8, "vocab_size": 16384, "multiple_of": 64}
MIB = 1 << 20


def test_a_peak_stays_when_the_memory_is_given_back() -> None:
    resident = psutil.Process().memory_info().rss
    held = b"1" * (256 * MIB)
    assert len(held)
    del held
    peak = peak_memory_bytes()
    assert peak is not None
    assert peak > resident + 250 * MIB


def test_the_forecast_is_what_a_training_takes(bench: Workbench) -> None:
    """23 M parameters, 1,024 tokens: within 15 % of what it takes beyond a tiny model, here 600 MiB.

    What a start takes depends on the build of torch: 300 MiB more with CUDA's. Each large tensor in pages of its own,
    so that the heap's holes don't count.
    """
    sections = {
        "training": {"steps": 2, "seq_len": 128},
        "optimizer": {"implementation": "fused"},
        "checkpoint": {"interval": 100, "last_save_model_only": True},
    }
    small = measured_and_forecast(bench.stage("small", sections), bench)
    large = measured_and_forecast(bench.stage("peak", sections, model_overrides=OVERRIDES), bench)
    taken, expected = zip(small, large, strict=True)
    beyond = expected[1] - expected[0]
    assert beyond > 500 * MIB
    assert taken[1] - taken[0] == pytest.approx(beyond, rel=0.15)


def measured_and_forecast(run: StageRun, bench: Workbench) -> tuple[int, float]:
    """What a training took, and what the plan says of it, in bytes."""
    assert bench.run_process(run, env={"MALLOC_MMAP_THRESHOLD_": "1000000"}) == 0, (run.folder / "log.txt").read_text()
    taken = json.loads((run.folder / "result.json").read_text())["peak_memory_bytes"]
    config = {**dataclasses.asdict(build_job_config(run)), "launcher": {"nproc_per_node": 1, "nnodes": 1}}
    args = {**load_snapshot()["models"]["llama3"]["flavors"]["debugmodel"], **run.model_overrides}
    shapes = model_weights("llama3", args)
    assert shapes is not None
    return taken, memory(config, "llama3", args, shapes, count("llama3", args, shapes, 128, Lora()), "cpu").total
