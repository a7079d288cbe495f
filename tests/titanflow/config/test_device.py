from pathlib import Path

import pytest

from titanflow.config import device
from titanflow.config.device import Device, stage_device, this_machine


@pytest.fixture(autouse=True)
def torch_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_torch_build", lambda: "2.13.0+cu130")


def drivers(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def found(folder: Path, **environ: str) -> tuple[str, int | None]:
    there = this_machine(environ, folder)
    return there.kind, there.count


def test_no_driver_is_no_gpu(tmp_path: Path) -> None:
    assert found(drivers(tmp_path, "null", "nvidiactl", "nvidia-uvm")) == ("cpu", None)


def test_nvidias_driver_makes_a_file_for_each_gpu(tmp_path: Path) -> None:
    assert found(drivers(tmp_path, "nvidiactl", "nvidia0", "nvidia1")) == ("cuda", 2)


@pytest.mark.parametrize(("visible", "expected"), [("0", 1), ("0,1", 2), ("MIG-1,MIG-2,MIG-3", 3)])
def test_the_environment_says_which_of_them_count(tmp_path: Path, visible: str, expected: int) -> None:
    assert found(drivers(tmp_path, "nvidia0", "nvidia1"), CUDA_VISIBLE_DEVICES=visible) == ("cuda", expected)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_the_environment_may_hide_all(tmp_path: Path, visible: str) -> None:
    assert found(drivers(tmp_path, "nvidia0"), CUDA_VISIBLE_DEVICES=visible) == ("cpu", None)


@pytest.mark.parametrize("name", ["kfd", "dxg"])
def test_where_gpus_cant_be_counted_there_are_some(tmp_path: Path, name: str) -> None:
    assert found(drivers(tmp_path, name)) == ("cuda", None)


def test_a_torch_for_cpus_sees_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_torch_build", lambda: "2.13.0+cpu")
    assert found(drivers(tmp_path, "nvidia0")) == ("cpu", None)


def test_the_config_goes_first() -> None:
    assert stage_device({"device": "cpu"}) == Device("cpu", found="launcher.device is cpu")
    assert stage_device({"device": "cuda", "nnodes": 2}) == Device("cuda", found="launcher.device is cuda")
    assert stage_device({"device": "auto", "nnodes": 2}) is None
    hidden = stage_device({"device": "auto", "nnodes": 1}, {"CUDA_VISIBLE_DEVICES": ""})
    assert hidden is not None
    assert hidden.kind == "cpu"
