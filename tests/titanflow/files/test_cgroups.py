"""Cores and memory that control groups leave a process."""

import os
from pathlib import Path

import pytest

from titanflow.config.experiment import load_experiment
from titanflow.files.cgroups import memory_limit, usable_cores
from titanflow.planning import launch
from titanflow.runs.contract import StageRun

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


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is bound to eight of the machine's cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
    ],
)
def test_a_quota_of_cores(bound: None, proc: Path, tmp_path: Path, limit: str, expected: int) -> None:
    write(proc, self__cgroup="0::/pod/box\n")
    groups = write(tmp_path / "groups", pod__cpu_DOT_max=limit, pod__box__cpu_DOT_max="max 100000")
    assert usable_cores(proc, groups) == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8)])
def test_the_first_version_s_quota(bound: None, proc: Path, tmp_path: Path, quota: str, expected: int) -> None:
    write(proc, self__cgroup="3:cpu,cpuacct:/x\n2:memory:/box\n")
    groups = write(tmp_path / "groups", cpu__x__cpu_DOT_cfs_quota_us=quota, cpu__x__cpu_DOT_cfs_period_us="100000")
    assert usable_cores(proc, groups) == expected


def test_a_machine_without_cgroups_has_the_cores_that_the_process_is_bound_to(bound: None, tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path) == 8


def test_a_stage_s_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def threads(**launcher: int) -> str:
        run = StageRun(stage="sft", experiment="e", run="r", folder=tmp_path, config={"launcher": launcher})
        return launch.environment(run, load_experiment("stdlib"))["OMP_NUM_THREADS"]

    monkeypatch.setattr(launch, "usable_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads(nproc_per_node=count) for count in (1, 2, 4, 8)] == ["6", "3", "1", "1"]
    assert threads(nproc_per_node=2, omp_num_threads=5) == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads(nproc_per_node=2) == "7"
