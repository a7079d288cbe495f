from pathlib import Path

import pytest
from finished_stage import evaluate_result, finish_training

from titan.tracking.lineage import evaluated_artifacts, model_artifact, used_artifacts
from titanflow.common.digests import digest
from titanflow.runs.contract import PreparedData, StageRun


@pytest.fixture
def pretrained(tmp_path):
    run = StageRun(
        stage="pretrain", experiment="a demo", run="monday", folder=tmp_path / "pretrain", fingerprint="made"
    )
    run.write()
    (run.folder / "export").mkdir()
    written = {"export": run.folder / "export", "export_digests": {"model.safetensors": "0a"}}
    return run, finish_training(run.folder, step=9, **written)


def test_the_next_stages_use_the_very_artifact_that_the_first_logged(tmp_path, pretrained):
    run, result = pretrained
    logged = model_artifact(run, result)
    assert (logged.name, logged.type, logged.aliases) == ("a-demo-pretrain", "model", ["monday", "step-9"])
    assert logged.digest == digest(result.export_digests)
    data = tmp_path / "data" / "chats-1"
    data.mkdir(parents=True)
    (data / "dataset.json").write_text('{"name": "chats", "fingerprint": "1f"}')
    sft = StageRun(
        stage="sft",
        experiment="a demo",
        run="monday",
        folder=tmp_path / "sft",
        base=run.folder,
        data=PreparedData(train=data),
    )
    dataset, base = used_artifacts(sft)
    assert base == logged
    assert (dataset.name, dataset.type, dataset.digest, dataset.aliases) == ("chats", "dataset", "1f", ["1f"])
    assert dataset.reference == data.as_uri()
    scored = evaluate_result(folders={"base": run.folder / "export", "native": result.checkpoint})
    assert evaluated_artifacts(scored) == [logged, logged]


def test_a_stage_without_an_export_gives_its_checkpoint(pretrained):
    run, result = pretrained
    artifact = model_artifact(run, result.model_copy(update={"export": None, "export_digests": {}}))
    assert artifact.reference == result.checkpoint.as_uri()
    assert artifact.digest == "made"


def test_a_repositorys_snapshot_is_known_by_its_commit():
    folder = Path("/cache/models--org--small-model/snapshots/0123abc")
    run = StageRun(stage="sft", experiment="x", run="y", folder=Path("/runs/sft"), base=folder)
    (base,) = used_artifacts(run)
    assert (base.name, base.digest) == ("org-small-model", "0123abc")
    assert base.reference == "https://huggingface.co/org/small-model/tree/0123abc"
