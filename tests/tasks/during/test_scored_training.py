"""A real training whose checkpoints are scored beside it, as its task does it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import killed_scoring
import pytest
import yaml
from tiny_experiment import ROOT, write_tiny_experiment

from tasks import stage_task
from tasks.during import evaluator
from tasks.stage_task import run_stage
from tasks.ui import progress
from titan.tracking.wandb_files import recordings, steps
from titanflow.planning.plan import make_plan
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import EVALUATIONS_FILE, read_metrics
from titanflow.runs.results import EvaluateResult, read_result
from titanflow.runs.tracker_record import read_tracker_record

pytestmark = pytest.mark.slow

DURING = {"every": 4, "tasks": ["tiny_bytes"], "limit": 5}
BYTES = """\
task: tiny_bytes
dataset_path: json
dataset_kwargs:
  data_files: {{test: {root}/items.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The tiny experiment with a pretraining that keeps its last two checkpoints, and one task of exact scores.

    Their mean is evaluated, too; it can't be made before the pretraining is done.
    """
    folder = write_tiny_experiment(tmp_path)
    (folder / "evals" / "tiny_bytes.yaml").write_text(BYTES.format(root=tmp_path), encoding="utf-8")
    path = folder / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
    modules: dict[str, Any] = experiment["modules"]
    del modules["sft"], modules["publish"]
    models = {"pretrain": "pretrain", "mean": {"mean": {"of": "pretrain", "last": 2}}}
    modules["evaluate"]["overrides"] |= {"models": models, "tasks": ["tiny_colour", "tiny_bytes"], "chat": False}
    modules["pretrain"]["overrides"]["metrics"]["enable_wandb"] = True
    modules["pretrain"]["overrides"]["training"]["steps"] = 8
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(progress, "Artifacts", Mock())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def trained(configs: Path, run: str, overrides: dict[str, Any]) -> Path:
    """The folder of a pretraining that is done."""
    plan = make_plan("tiny", configs, run, overrides)
    for stage in plan.stages:
        if stage.stage in ("prepare", "pretrain"):
            run_stage(stage, Manifest.open(plan.folder))
    return plan.folder / "pretrain"


def standalone(scored: Path, checkpoint: Path, folder: Path) -> EvaluateResult:
    """The evaluation of a checkpoint by the evaluate stage's own program."""
    run = yaml.safe_load((scored / "during" / "run.yaml").read_text(encoding="utf-8"))
    run |= {"folder": str(folder), "config": {**run["config"], "models": {"it": str(checkpoint)}, "wandb": False}}
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    command = [sys.executable, "-m", "titan.evaluate.evaluate", str(folder / "run.yaml")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    result = read_result(folder)
    assert isinstance(result, EvaluateResult)
    return result


def test_training_is_untouched_and_scores_are_those_of_an_evaluation_though_one_dies(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(configs, "plain", {})
    monkeypatch.setattr(evaluator, "MODULE", killed_scoring.__name__)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(killed_scoring.__file__).parent}")
    scored = trained(configs, "scored", {f"pretrain.during.{key}": value for key, value in DURING.items()})
    losses = [
        [(one["step"], one.get("loss"), one.get("grad_norm"), one.get("validation_loss")) for one in read_metrics(file)]
        for file in (plain / METRICS_FILE, scored / METRICS_FILE)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) > 8
    records = read_metrics(scored / EVALUATIONS_FILE)
    assert [(one["step"], one["tasks"], one["limit"]) for one in records] == [(n, ["tiny_bytes"], 5) for n in (4, 8)]
    print((scored / killed_scoring.KILL).read_text(encoding="utf-8"))
    expected = standalone(scored, plain / "checkpoint" / "step-8", tmp_path / "standalone")
    value = expected.scores["it"]["tiny_bytes"]["bits_per_byte"]
    assert records[-1]["scores"]["tiny_bytes"]["bits_per_byte"] == pytest.approx(value, abs=1e-6)
    assert abs(records[0]["scores"]["tiny_bytes"]["bits_per_byte"] - value) > 1e-3
    assert not list((scored / "during").glob("*step-*/"))
    # One run of its own at W&B, a row a step, in the group of the training's.
    record, own = (read_tracker_record(folder, "wandb") for folder in (scored / "during", scored))
    assert record is not None
    assert own is not None
    assert (record.group, record.id != own.id) == (own.group, True)
    assert sorted(step for one in recordings(scored / "during", record.id) for step in steps(one)) == [4, 8]
    # What was scored isn't scored again, nor does anything run once the stage is done.
    assert json.loads((scored / "during" / "result.json").read_text(encoding="utf-8"))["limit"] == 5
    again = make_plan("tiny", configs, "scored", {f"pretrain.during.{key}": value for key, value in DURING.items()})
    assert {stage.stage: stage.state for stage in again.stages}["pretrain"] == "CACHED"
