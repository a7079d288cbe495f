import os
import subprocess
import sys
from pathlib import Path

import pytest
from watching import STAYS, wait_for

from tasks.process import device_lock as module
from tasks.process.device_lock import device_lock, gpu_names, stage_gpus
from titanflow.config.device import Device
from titanflow.runs.contract import StageRun

GPUS = Device("cuda", 4)
CPU = Device("cpu")
# Holds the GPU of a stage until it is killed.
HOLDS = f"""
import sys, time
from pathlib import Path
from tasks.process import device_lock as module
from titanflow.config.device import Device
from titanflow.runs.contract import StageRun
module.this_machine = lambda: Device("cuda", 2)
run = StageRun(stage="sft", experiment="tiny", run="held", folder=Path("/f"))
with module.device_lock(run, print, Path(sys.argv[1])):
    Path(sys.argv[1], "held").touch()
    time.sleep({STAYS})
"""


def run_of(stage="pretrain", **launcher):
    return StageRun(stage=stage, experiment="tiny", run="main", folder=Path("/f"), config={"launcher": launcher})


@pytest.mark.parametrize(
    ("run", "machine", "environ", "gpus"),
    [
        (run_of(), GPUS, {}, ["0"]),
        (run_of(nproc_per_node=2), GPUS, {}, ["0", "1"]),
        (run_of(nproc_per_node=2), GPUS, {"CUDA_VISIBLE_DEVICES": "3,1"}, ["3", "1"]),
        (run_of("evaluate"), GPUS, {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, ["GPU-8932f937"]),
        (run_of("prepare"), GPUS, {}, []),
        (run_of(device="cpu"), GPUS, {}, []),
        (run_of(share_device=True), GPUS, {}, []),
        (run_of(), CPU, {}, []),
    ],
)
def test_a_stage_takes_a_gpu_a_process(run, machine, environ, gpus):
    assert stage_gpus(run, machine, environ) == gpus


def test_gpus_have_the_names_that_cuda_has_for_them():
    assert gpu_names(Device("cuda", 2), {}) == ["0", "1"]
    assert gpu_names(Device("cuda", None), {}) == []


def test_a_gpu_is_waited_for_by_its_holder_s_name_and_free_when_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "this_machine", lambda: Device("cuda", 2))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], env=env)
    said = []

    def say(text):
        said.append(text)
        holder.kill()

    try:
        wait_for((tmp_path / "held").exists, "the holder")
        with device_lock(run_of(), say, tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    message = f"waiting for GPU 0, on which sft of tiny/held (process {holder.pid}) runs"
    assert [text.partition(" (launcher")[0] for text in said] == [message]


def test_another_gpu_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "this_machine", lambda: Device("cuda", 2))
    with device_lock(run_of(), pytest.fail, tmp_path):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with device_lock(run_of(), pytest.fail, tmp_path):
            assert sorted(path.name for path in tmp_path.iterdir()) == ["0.lock", "1.lock"]
