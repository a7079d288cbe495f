"""The machine that drafts are made for, which the tests choose."""

from collections.abc import Callable
from pathlib import Path

import pytest
from drafts import CPU, GIB

from titanflow.config.device import Device
from titanflow.config.settled import precision
from titanflow.draft import machine
from titanflow.planning.forecast.device import DeviceSpec


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "device_of", lambda launcher: CPU)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts so many GPUs into the machine."""

    def have(gib: int, count: int = 1, name: str = "NVIDIA H100") -> None:
        found = machine.Machine(DeviceSpec("cuda", name, gib * GIB), count)
        monkeypatch.setattr(machine.Machine, "here", lambda: found)
        monkeypatch.setattr(precision, "stage_device", lambda launcher: Device("cuda", count))

    return have
