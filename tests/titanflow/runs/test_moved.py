"""A run that was moved or copied is read where it lies now."""

import shutil
from pathlib import Path

import pytest
from finished_stage import evaluate_result, finish_training

from titanflow.common.errors import DataError
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import EvaluateResult, TrainResult, read_result, write_result


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with prepared data, a pretrain and an evaluate stage; its name makes YAML fold the line."""
    root = tmp_path / ("runs of somebody " * 8).strip()
    run, data = root / "tiny" / "main", root / "data" / "text-1"
    data.mkdir(parents=True)
    stages = {"pretrain": run / "pretrain", "evaluate": run / "evaluate"}
    common = {"experiment": "tiny", "run": "main", "stages": stages, "tokenizer": root / "data" / "gone"}
    for stage in stages:
        StageRun(stage=stage, folder=run / stage, data=PreparedData(train=data), **common).write()
    finish_training(run / "pretrain", step=4)
    folders = {"base": run / "pretrain" / "export", "other": Path("/models/other")}
    write_result(run / "evaluate", evaluate_result(folders=folders))
    return root


def places(run: Path) -> list[Path]:
    stage = StageRun.read(run / "pretrain" / "run.yaml")
    result, evaluation = read_result(run / "pretrain"), read_result(run / "evaluate")
    assert isinstance(result, TrainResult)
    assert isinstance(evaluation, EvaluateResult)
    assert stage.data.train is not None
    assert stage.tokenizer is not None
    return [stage.folder, *stage.stages.values(), result.checkpoint, *evaluation.folders.values(), stage.data.train]


def expected(run: Path, workspace: Path) -> list[Path]:
    of_run = ["pretrain", "pretrain", "evaluate", "pretrain/checkpoint/step-4", "pretrain/export"]
    return [*(run / name for name in of_run), Path("/models/other"), workspace / "data" / "text-1"]


def test_where_it_was_written_everything_is_as_written(workspace: Path) -> None:
    run = workspace / "tiny" / "main"
    assert places(run) == expected(run, workspace)


def test_a_workspace_that_was_moved(workspace: Path, tmp_path: Path) -> None:
    moved = workspace.rename(tmp_path / "elsewhere")
    run = moved / "tiny" / "main"
    assert places(run) == expected(run, moved)
    # What isn't in the new place either is named as it was written.
    assert StageRun.read(run / "pretrain" / "run.yaml").tokenizer == workspace / "data" / "gone"


def test_a_run_that_was_copied_alone_keeps_its_data(workspace: Path, tmp_path: Path) -> None:
    for place in (workspace / "tiny" / "second", tmp_path / "backup" / "main"):
        shutil.copytree(workspace / "tiny" / "main", place)
        assert places(place) == expected(place, workspace)


def test_what_was_made_again_knows_its_own_folder(workspace: Path) -> None:
    run = workspace / "tiny" / "main"
    old = run / "superseded" / "pretrain-1"
    old.parent.mkdir()
    (run / "pretrain").rename(old)
    result, stage = read_result(old), StageRun.read(old / "run.yaml")
    assert isinstance(result, TrainResult)
    assert (result.checkpoint, stage.stages["evaluate"]) == (old / "checkpoint" / "step-4", run / "evaluate")


def test_a_result_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"stage": "publish", "target": "folder", "location": "/m", "of_then": 1}')
    with pytest.raises(DataError, match=r"result\.json: another version of titanflow wrote it"):
        read_result(tmp_path)
