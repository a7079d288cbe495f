from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.during import device
from tasks.during.device import own_device, spare_cores
from titanflow.common.file_lock import take
from titanflow.config.device import Device
from titanflow.runs.contract import StageRun


def training(**launcher: Any) -> StageRun:
    return StageRun(
        stage="pretrain", experiment="tiny", run="main", folder=Path("/none"), config={"launcher": launcher}
    )


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "this_machine", lambda: Device("cuda", 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("four_gpus")
def test_the_first_gpu_that_neither_the_training_nor_another_stage_has(tmp_path: Path) -> None:
    two = training(nproc_per_node=2)
    with own_device(two, "auto", tmp_path) as first, own_device(two, "auto", tmp_path) as second:
        assert (first, second) == ({"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "3"})
        with own_device(two, "auto", tmp_path) as third:
            assert third == {"CUDA_VISIBLE_DEVICES": ""}
        with (tmp_path / "2.lock").open(encoding="utf-8") as file:
            assert "scores of tiny/main" in take(file)
    with (tmp_path / "2.lock").open(encoding="utf-8") as file:
        assert take(file) == ""


@pytest.mark.usefixtures("four_gpus")
def test_never_the_trainings_own_unless_told(tmp_path: Path) -> None:
    for launcher in ({"nproc_per_node": 4}, {"nproc_per_node": 4, "share_device": True}):
        with own_device(training(**launcher), "auto", tmp_path) as found:
            assert found == {"CUDA_VISIBLE_DEVICES": ""}
    with own_device(training(nproc_per_node=4), "shared", tmp_path) as found:
        assert found == {}
    with own_device(training(nproc_per_node=1), "cpu", tmp_path) as found:
        assert found == {"CUDA_VISIBLE_DEVICES": ""}
    with own_device(training(nproc_per_node=1, device="cpu"), "auto", tmp_path) as found:
        assert found == {"CUDA_VISIBLE_DEVICES": "0"}


def test_the_cores_that_the_training_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 16)
    assert spare_cores(training(nproc_per_node=2), 4) == 8
    assert spare_cores(training(nproc_per_node=4), 4) == 1
