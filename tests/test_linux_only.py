"""Other systems are refused by every entry, in one line and before anything is written."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROGRAMS = [
    *(
        "titanflow.cli.main",
        "titanflow.data.prepare",
        "titanflow.publish.publish",
        "titan.train.train",
        "titan.evaluate.evaluate",
        "titan.export.export",
    ),
    "flows.server.own_server",
]


def on(system: str, statement: str, folder: Path, before: str = "pass") -> subprocess.CompletedProcess[str]:
    """A statement in a new process that takes itself to be on another system; ``before``, it is on its own."""
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); {before}; sys.platform = {system!r}; {statement}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def check_refused(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "titanflow runs on Linux only" in line
    assert "WSL2" in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program(tmp_path: Path, program: str) -> None:
    check_refused(on("darwin", f"runpy.run_module({program!r}, run_name='__main__')", tmp_path), tmp_path)


@pytest.mark.parametrize("package", ["flows", "tasks", "titan", "titanflow", "deployments"])
def test_a_package_is_refused_before_anything_else_is_imported(tmp_path: Path, package: str) -> None:
    done = on("win32", f"import {package}", tmp_path)
    check_refused(done, tmp_path)
    assert "win32" in done.stderr


def test_the_flow_as_a_worker_loads_it(tmp_path: Path) -> None:
    load = "from prefect.flows import load_flow_from_entrypoint"
    flow = f"{ROOT / 'flows' / 'pretrain_sft.py'}:pretrain_sft"
    check_refused(on("darwin", f"load_flow_from_entrypoint({flow!r})", tmp_path, load), tmp_path)


@pytest.mark.parametrize("target", [[], ["plan"], ["serve"], ["test"], ["clean"]])
def test_make(tmp_path: Path, target: list[str]) -> None:
    system, project = tmp_path / "bin", tmp_path / "clone"
    system.mkdir()
    project.mkdir()
    (system / "uname").write_text("#!/bin/sh\necho Darwin\n")
    (system / "uname").chmod(0o755)
    # What a make above this one says to its own is not said to this one.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environ = {**own, "PATH": f"{system}{os.pathsep}{os.environ['PATH']}"}
    make = ["make", "-f", str(ROOT / "Makefile"), *target]
    check_refused(subprocess.run(make, capture_output=True, text=True, cwd=project, env=environ), project)


def test_an_installation() -> None:
    # triton has wheels for Linux alone, and torchtitan imports it at start-up.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [Requirement(line).marker for line in project["dependencies"] if line.startswith("triton")] == [None]
    assert [line for line in project["classifiers"] if line.startswith("Operating System")] == [
        "Operating System :: POSIX :: Linux"
    ]
