"""A real run that publishes the best checkpoint of its training, which retention would have removed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from best_experiment import BY, write_best_experiment
from tiny_experiment import ROOT

from tasks import stage_task
from tasks.stage_task import run_stage
from tasks.ui import progress
from titan.export.export import export_checkpoint
from titanflow.common.digests import file_digest
from titanflow.planning.plan import make_plan
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import EVALUATIONS_FILE, read_metrics

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(progress, "Artifacts", Mock())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_an_earlier_checkpoint_is_held_scored_and_published_to_the_bit(tmp_path: Path) -> None:
    configs = write_best_experiment(tmp_path)
    shorter = ["pretrain.training.steps=8", "evaluate.tasks=[tiny_bytes]", "pretrain.launcher.omp_num_threads=1"]
    plan = make_plan("tiny", configs, overrides=shorter)
    pretrain, model = plan.folder / "pretrain", plan.folder / "publish" / "model"
    for stage in plan.stages:
        run_stage(stage, Manifest.open(plan.folder))
        if stage.stage == "pretrain":
            # As retention does in a longer training.
            shutil.rmtree(pretrain / "checkpoint" / "step-4")
    records = read_metrics(pretrain / EVALUATIONS_FILE)
    values = {one["step"]: one["scores"]["tiny_bytes"]["bits_per_byte"] for one in records}
    assert list(values) == [4, 8]
    assert values[4] > values[8]
    assert [path.name for path in (pretrain / "during").glob("step-*")] == ["step-4"]
    export_checkpoint(pretrain / "during" / "step-4", tmp_path / "export")
    assert file_digest(model / WEIGHTS) == file_digest(tmp_path / "export" / WEIGHTS)
    assert file_digest(model / WEIGHTS) != file_digest(pretrain / "export" / WEIGHTS)

    # What was chosen, and by what, stands in the manifest, the card and the lineage.
    best = Manifest.open(plan.folder).stages["evaluate"].best["pretrain.best"]
    assert (best.stage, best.step, best.by, best.value, best.scored) == ("pretrain", 4, BY, values[4], 2)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "the best of its 2 scored checkpoints by\n`dev/tiny_bytes/bits_per_byte`" in card
    assert "saw 768 tokens" in card
    # Nothing was trained in making it.
    assert card.count("| trained on |") == 1
    published = json.loads((model / "titanflow.json").read_text(encoding="utf-8"))["stages"]["pretrain.best"]
    assert (published["step"], published["best"]["by"]) == (4, BY)

    again = make_plan("tiny", configs, overrides=shorter)
    assert {stage.state for stage in again.stages} == {"CACHED"}
    evaluate = again.stage("evaluate")
    assert evaluate is not None
    assert "pretrain.best is step 4 of pretrain, the best of 2" in evaluate.reason
