"""What an export takes of memory: measured in a process of its own, on a checkpoint that two ranks wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_ranks import run_forked
from tiny_exports import write_byte_tokenizer
from tiny_stages import PATIENCE

from titanflow.planning.forecast.export_memory import LIBRARIES, export_memory

pytestmark = pytest.mark.slow
SHARD_SIZE = 25_000_000
MODEL = """
import dataclasses
import sys
from pathlib import Path
from titan.models.registry import train_spec

from torchtitan.models.moe import MoEArgs

FEW = {"dim": 20, "n_layers": 1, "n_heads": 10, "n_kv_heads": 5, "vocab_size": 4096, "max_seq_len": 64}
ROUTED = MoEArgs(
    num_experts=16,
    num_shared_experts=0,
    score_func="softmax",
    route_norm=True,
    score_before_experts=False,
    top_k=2,
    load_balance_coeff=None,
)
EXPERTS = {"dim": 320, "n_layers": 6, "head_dim": 32, "enable_weight_tying": False, "moe_enabled": True}
MODELS = {
    "few": ("llama3", FEW),
    "many": ("llama3", FEW | {"dim": 640, "n_layers": 8}),
    "experts": ("qwen3", FEW | EXPERTS | {"moe_inter_dim": 512, "moe_args": ROUTED}),
}
folder = Path(sys.argv[1])

def model_args(name):
    family, sizes = MODELS[name]
    return dataclasses.replace(train_spec(family).model_args["debugmodel"], **sizes)
"""
SAVE = """
import torch
import torch.distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
for name, (family, _) in MODELS.items():
    torch.manual_seed(0)
    with torch.device("meta"):
        wanted = train_spec(family).model_cls(model_args(name)).state_dict()
    # Around 1 for the norms, around 0 for the rest.
    weights = {key: torch.randn(value.shape) * 0.05 + (value.dim() == 1) for key, value in wanted.items()}
    sharded = {key: distribute_tensor(value, mesh, [Shard(0)]) for key, value in weights.items()}
    dcp.save(sharded, checkpoint_id=folder / f"{name}-checkpoint")
dist.destroy_process_group()
"""
EXPORT = """
import json
import threading
import titan.export.export
from titan.weights.stage_model import TrainedModel
from titan.weights.stage_model import named_weights

def taken():
    # What only this process has, and with it the pages of files.
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if " kB" in line}
    return found["RssAnon:"], found["VmRSS:"]

def highest(action):
    seen, done = [], threading.Event()

    def watch():
        while not done.wait(0.002):
            seen.append(taken())

    watching = threading.Thread(target=watch)
    watching.start()
    action()
    done.set()
    watching.join()
    return [max(one) for one in zip(*seen)]

def export(name):
    checkpoint, out = folder / f"{name}-checkpoint", folder / name
    weights = named_weights(checkpoint)
    model = TrainedModel(MODELS[name][0], model_args(name), 64, folder / "tokenizer", weights=weights)
    titan.export.export.export_model(model, out)

titan.export.export.SHARD_SIZE = int(sys.argv[2])
peaks = {name: highest(lambda: export(name)) for name in MODELS}
print(json.dumps(peaks))
"""


def written(source: str, folder: Path) -> str:
    script = folder / "script.py"
    script.write_text(MODEL + source)
    return str(script)


def save(folder: Path) -> None:
    log = folder / "log.txt"
    assert run_forked([written(SAVE, folder), str(folder)], 2, os.environ, log, PATIENCE) == 0, log.read_text()


def export(folder: Path) -> dict[str, list[int]]:
    command = [sys.executable, written(EXPORT, folder), str(folder), str(SHARD_SIZE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks: dict[str, list[int]] = json.loads(done.stdout)
    return peaks


def test_an_export_takes_no_more_memory_than_two_of_its_files(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path / "tokenizer")
    save(tmp_path)

    peaks = export(tmp_path)

    for name in ("many", "experts"):
        sizes = sorted(path.stat().st_size for path in (tmp_path / name).glob("model-*.safetensors"))
        assert len(sizes) > 5
        assert sizes[-1] <= SHARD_SIZE + 20_000
        # Libraries and their threads take what an export of a few numbers takes.
        assert peaks[name][0] - peaks["few"][0] <= 2 * sizes[-1], (peaks, sum(sizes))
    # A cluster may count the pages of files, too: the plan forecasts both models. Libraries differ by installation.
    resident = peaks["many"][1] - peaks["few"][1]
    bytes_of_the_model = sum(path.stat().st_size for path in (tmp_path / "many").glob("model-*.safetensors"))
    forecast = export_memory({"training": {"seq_len": 64}}, "llama3", {"vocab_size": 4096}, bytes_of_the_model // 4)
    assert forecast is not None
    assert 0.75 < resident / (forecast - LIBRARIES) < 1.4, (peaks, forecast)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
