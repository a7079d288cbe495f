from pathlib import Path

import pytest

from titanflow.planning.forecast.device import DeviceSpec, cpu, memory_limit, parse_gpus
from titanflow.planning.forecast.forecasts import UNKNOWN_GPU, _visible

GIB = 1 << 30


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return write(tmp_path / "proc", meminfo="MemTotal:       16777216 kB\nMemFree: 1 kB\n")


def test_the_machine_s_memory(proc: Path, tmp_path: Path) -> None:
    assert memory_limit(proc, tmp_path) == 16 * GIB
    assert memory_limit(tmp_path / "nothing", tmp_path) is None


@pytest.mark.parametrize(("limit", "expected"), [("8589934592\n", 8 * GIB), ("max\n", 16 * GIB), ("", 16 * GIB)])
def test_a_cgroup_s_limit(proc: Path, tmp_path: Path, limit: str, expected: int) -> None:
    write(proc, self__cgroup="0::/system.slice/job\n")
    groups = write(tmp_path / "groups", system_DOT_slice__memory_DOT_max=limit)
    assert memory_limit(proc, groups) == expected


def test_a_container_s_limit_stands_at_the_top(proc: Path, tmp_path: Path) -> None:
    write(proc, self__cgroup="0::/docker/0123abc\n")
    assert memory_limit(proc, write(tmp_path / "groups", memory_DOT_max="4294967296")) == 4 * GIB


def test_the_first_version_s_limit(proc: Path, tmp_path: Path) -> None:
    write(proc, self__cgroup="3:cpu,cpuacct:/x\n2:memory:/box\n1:name=systemd:/x\n")
    groups = write(tmp_path / "groups", memory__box__memory_DOT_limit_in_bytes="2147483648")
    assert memory_limit(proc, groups) == 2 * GIB


def test_what_nvidia_smi_answers() -> None:
    answer = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA A100-SXM4-40GB, 40960\nNVIDIA GB10, [N/A]\n"
    first, second, third = parse_gpus(answer)
    assert first == DeviceSpec("cuda", "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert (first.peak_flops, second.peak_flops, third.peak_flops) == (989e12, 312e12, None)
    assert third.memory is None
    assert parse_gpus("No devices were found\n") == ()


def test_which_gpus_are_visible() -> None:
    gpus = parse_gpus("A100, 40960\nH100, 81559\n")
    assert _visible(gpus, None) == gpus
    assert _visible(gpus, "1") == gpus[1:]
    assert _visible(gpus, "GPU-8a6f") == gpus
    assert _visible(gpus, "5") == gpus
    assert UNKNOWN_GPU.memory is None


def test_this_machine() -> None:
    assert cpu().cores >= 1
    assert cpu().peak_flops is None
