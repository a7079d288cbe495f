import json
import subprocess
from pathlib import Path

import pytest
from finished_stage import finish_training

from titanflow.common.errors import DataError
from titanflow.planning.forecast.forecast import Forecast
from titanflow.runs import manifest as manifest_module
from titanflow.runs.contract import RESULT_FILE, StageRun
from titanflow.runs.manifest import Manifest, checkpoint_digest, git_revision
from titanflow.runs.results import ArtifactRecord, InheritanceRow, PublishResult, TrackerRecord, write_result


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    run = StageRun(stage="publish", experiment="e", run="main", folder=tmp_path / "publish", fingerprint="f1")
    run.folder.mkdir()
    run.write()
    return run


@pytest.fixture
def finished(run: StageRun) -> StageRun:
    model = run.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    result = PublishResult(target="folder", location=str(model), files={"config.json": "0"})
    write_result(run.folder, result)
    manifest = Manifest.open(run.folder.parent)
    manifest.record_start(run, prefect_run_id="prefect-1")
    manifest.record_finish(run, result)
    return run


def test_a_stage_is_done_with_its_fingerprint_and_outputs(finished: StageRun) -> None:
    manifest = Manifest.open(finished.folder.parent)
    assert manifest.is_done("publish", "f1")
    assert not manifest.is_done("publish", "f2")
    assert not manifest.is_done("evaluate", "f1")
    record = manifest.stages["publish"]
    assert record.prefect_run == "prefect-1"
    assert record.outputs["publish/model/config.json"].bytes == 2


@pytest.mark.parametrize("change", ["gone", "cut short"])
def test_a_stage_whose_output_changed_is_not_done(finished: StageRun, change: str) -> None:
    config = finished.folder / "model" / "config.json"
    config.unlink() if change == "gone" else config.write_text("")
    assert not Manifest.open(finished.folder.parent).is_done("publish", "f1")


def test_a_stage_that_begins_again_is_not_done(finished: StageRun) -> None:
    Manifest.open(finished.folder.parent).record_start(finished)
    assert not Manifest.open(finished.folder.parent).is_done("publish", "f1")


def test_a_stage_that_is_made_again_was_made_from_no_later_one(finished: StageRun) -> None:
    folder = finished.folder.parent
    again = finished.model_copy(update={"stage": "evaluate", "folder": folder / "evaluate"})
    manifest = Manifest.open(folder)
    manifest.record_start(again)
    manifest.record_start(finished)
    assert manifest.stages["evaluate"].parents == {}


def test_what_was_forecast_is_kept(run: StageRun) -> None:
    forecast = Forecast("like", seconds=12.0, source="measured on run main")
    Manifest.open(run.folder.parent).record_start(run, forecast=forecast.as_json())
    kept = Manifest.open(run.folder.parent).stages["publish"].forecast
    assert (kept["like"], kept["seconds"]) == ("like", 12.0)


@pytest.mark.parametrize("status", ["held back", "dry run"])
def test_what_was_not_written_is_no_output(run: StageRun, status: str) -> None:
    folder = run.folder
    result = PublishResult(target="folder", location=str(folder / "model"), files={"config.json": "ab"}, status=status)
    run.write()
    write_result(folder, result)
    manifest = Manifest.open(folder.parent)
    manifest.record_finish(run, result)
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
    row = InheritanceRow(key="optimizer.lr", how="changed", base="0.1", here="0.2", origin="exp.yaml:3")
    result = finish_training(run.folder, stage="sft", inheritance=[row])
    Manifest.open(tmp_path).record_finish(run, result)
    record = Manifest.open(tmp_path).stages["sft"]
    assert record.inheritance == [row]


def test_a_result_that_says_the_same_of_what_was_made_is_the_same(finished: StageRun) -> None:
    """As after the stage was run again by hand: it took another time."""
    path, folder = finished.folder / RESULT_FILE, finished.folder.parent
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"seconds": 123.456}))
    assert Manifest.open(folder).verify("publish") == {"publish/model/config.json": "changed since it was written"}, (
        "the digest that this fixture's result gives is wrong, and reading finds that"
    )
    path.write_text(json.dumps(result | {"tag": "another"}))
    assert not Manifest.open(folder).is_done("publish", "f1")


def test_an_older_version_s_sizes_are_read(finished: StageRun) -> None:
    folder = finished.folder.parent
    stored = json.loads((folder / "manifest.json").read_text())
    record = stored["stages"]["publish"]
    record["outputs"] = {path: file["bytes"] for path, file in record["outputs"].items()}
    del record["inputs"], record["damaged"], record["kept"]
    (folder / "manifest.json").write_text(json.dumps(stored))
    assert Manifest.open(folder).is_done("publish", "f1")
    (finished.folder / "model/config.json").write_text("")
    assert not Manifest.open(folder).is_done("publish", "f1")


def test_the_wandb_run_and_its_artifacts_are_on_record(tmp_path: Path) -> None:
    run = StageRun(stage="pretrain", experiment="e", run="main", folder=tmp_path / "pretrain", fingerprint="f1")
    run.write()
    model = ArtifactRecord(name="e-pretrain", type="model", digest="0a")
    wandb = TrackerRecord(
        id="abc", mode="offline", project="e", group="e/main", folders=["offline-run-1-abc"], logged=[model]
    )
    result = finish_training(run.folder, trackers={"wandb": wandb})
    Manifest.open(tmp_path).record_finish(run, result)
    record = Manifest.open(tmp_path).stages["pretrain"]
    assert record.trackers == {"wandb": wandb}


def test_a_repository_around_the_environment_is_not_this_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    installed = tmp_path / ".venv" / "titanflow" / "manifest.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    (tmp_path / "paper.tex").touch()
    git("init", "-q")
    git("add", "paper.tex")
    git("commit", "-qm", "theirs")
    monkeypatch.setattr(manifest_module, "__file__", str(installed))
    assert git_revision() == ""
    git("add", "-f", ".venv")
    git("commit", "-qm", "as in a checkout")
    monkeypatch.setenv("TITANFLOW_REVISION", "of an image")
    assert git_revision() == git("rev-parse", "HEAD")
    git("rm", "-q", "--cached", str(installed))
    assert git_revision() == "of an image"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 3}', '{"folder": "/"}'])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"/manifest\.json: (can't be read: |another version)"):
        Manifest.open(tmp_path)
