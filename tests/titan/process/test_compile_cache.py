"""What a run compiles is kept in its workspace, and the next run takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_stages import Workbench

from titan.process import compile_cache
from titan.process.compile_cache import CACHE, FOLDER, keep_compiled
from titanflow.runs.contract import StageRun

COMPILED = {"compile": {"enable": True, "components": ["loss"]}, "training": {"steps": 2, "local_batch_size": 4}}


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    return StageRun(stage="pretrain", experiment="test", run="main", folder=tmp_path / "test" / "main" / "pretrain")


def test_other_versions_and_processors_have_a_folder_of_their_own(
    run: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for package in ("1.0", "1.0", "2.0"):
        monkeypatch.delenv(CACHE, raising=False)
        monkeypatch.setattr(compile_cache, "version", lambda name, known=package: known)
        folders.append(keep_compiled(run))
    assert folders[0] == folders[1]
    assert folders[1] != folders[2]
    assert {folder.parent for folder in folders} == {tmp_path / FOLDER}


def test_torchs_own_variable_wins(run: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "elsewhere"))
    assert keep_compiled(run) == tmp_path / "elsewhere"


@pytest.mark.slow
def test_a_second_run_compiles_nothing(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch notes here where this process would compile.
    monkeypatch.delenv(CACHE, raising=False)
    bench = Workbench(tmp_path / "test" / "main", shared_data)
    kernels = []
    for name in ("first", "second"):
        stage = bench.stage(name, COMPILED)
        assert bench.run(stage) == 0, log_of(stage)
        kernels.append({path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER).rglob("*.so")})
    assert kernels[0]
    assert kernels[0] == kernels[1]


def log_of(stage: StageRun) -> str:
    return (stage.folder / "log.txt").read_text(encoding="utf-8")
