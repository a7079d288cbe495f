from pathlib import Path

import pytest

from titanflow.forecast.forecast import Forecast
from titanflow.manifest import Manifest, checkpoint_digest
from titanflow.plan import StagePlan
from titanflow.stage import PublishResult, StageRun, TrainResult, write_result


@pytest.fixture
def plan(tmp_path: Path) -> StagePlan:
    run = StageRun(stage="publish", experiment="e", run="main", folder=tmp_path / "publish", fingerprint="f1")
    run.folder.mkdir()
    run.write()
    return StagePlan("publish", "RUN", "new", run)


@pytest.fixture
def finished(plan: StagePlan) -> StagePlan:
    model = plan.run.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    result = PublishResult(target="folder", location=str(model), files={"config.json": "0"})
    write_result(plan.run.folder, result)
    manifest = Manifest.open(plan.run.folder.parent)
    manifest.record_start(plan, "prefect-1")
    manifest.record_finish(plan, result)
    return plan


def test_a_stage_is_done_with_its_fingerprint_and_outputs(finished: StagePlan) -> None:
    manifest = Manifest.open(finished.run.folder.parent)
    assert manifest.is_done("publish", "f1")
    assert not manifest.is_done("publish", "f2")
    assert not manifest.is_done("evaluate", "f1")
    record = manifest.stages["publish"]
    assert record.prefect_run == "prefect-1"
    assert record.outputs["publish/model/config.json"] == 2


@pytest.mark.parametrize("change", ["gone", "cut short"])
def test_a_stage_whose_output_changed_is_not_done(finished: StagePlan, change: str) -> None:
    config = finished.run.folder / "model" / "config.json"
    config.unlink() if change == "gone" else config.write_text("")
    assert not Manifest.open(finished.run.folder.parent).is_done("publish", "f1")


def test_a_stage_that_begins_again_is_not_done(finished: StagePlan) -> None:
    Manifest.open(finished.run.folder.parent).record_start(finished)
    assert not Manifest.open(finished.run.folder.parent).is_done("publish", "f1")


def test_what_was_forecast_is_kept(plan: StagePlan) -> None:
    plan.forecast = Forecast("like", seconds=12.0, source="measured on run main")
    Manifest.open(plan.run.folder.parent).record_start(plan)
    kept = Manifest.open(plan.run.folder.parent).stages["publish"].forecast
    assert (kept["like"], kept["seconds"]) == ("like", 12.0)


@pytest.mark.parametrize("status", ["held back", "dry run"])
def test_what_was_not_written_is_no_output(plan: StagePlan, status: str) -> None:
    folder = plan.run.folder
    result = PublishResult(target="folder", location=str(folder / "model"), files={"config.json": "ab"}, status=status)
    plan.run.write()
    write_result(folder, result)
    manifest = Manifest.open(folder.parent)
    manifest.record_finish(plan, result)
    assert set(manifest.stages["publish"].outputs) == {"publish/run.yaml", "publish/result.json"}


def test_a_checkpoints_digest_is_of_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.distcp").write_bytes(b"weights")
    assert checkpoint_digest(tmp_path / "a") == checkpoint_digest(tmp_path / "b")
    (tmp_path / "b" / "x.distcp").write_bytes(b"Weights")
    assert checkpoint_digest(tmp_path / "a") != checkpoint_digest(tmp_path / "b")


def test_what_an_sft_inherited_and_changed_is_recorded(tmp_path: Path) -> None:
    run = StageRun(stage="sft", experiment="e", run="main", folder=tmp_path / "sft", fingerprint="f1")
    run.write()
    result = TrainResult(
        stage="sft",
        checkpoint=tmp_path / "sft" / "checkpoint" / "step-1",
        step=1,
        model_name="llama3",
        flavor="debugmodel",
        model_args={},
        parameters=1,
        seq_len=8,
        inherited=["Inherited n_layers=4 from pretrain"],
        changed=["optimizer.lr: 0.1 → 0.2"],
    )
    write_result(run.folder, result)
    Manifest.open(tmp_path).record_finish(StagePlan("sft", "RUN", "new", run), result)
    record = Manifest.open(tmp_path).stages["sft"]
    assert (record.inherited, record.changed) == (result.inherited, result.changed)
