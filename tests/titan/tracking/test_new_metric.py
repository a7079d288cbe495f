"""A metric of a training is a file of ``titan/tracking/measures``; a score of a task is a function beside its YAML."""

from __future__ import annotations

import json
import math
from pathlib import Path

from copied_packages import copy_packages, run_there
from tiny_evals import KINDS
from tiny_evaluation import evaluation, write_trained
from tiny_stages import Workbench, records

from titan.evaluate.evaluate import main
from titan.tracking.measures.registry import MEASURES
from titan.tracking.wandb_files import history, recordings
from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.task_checks import task_problems
from titanflow.runs.results import EvaluateResult, read_result
from titanflow.runs.tracker_record import read_tracker_record

MEASURE = '''"""How large the weights are."""

METRICS = {"norm": ("–", "2-norm of all weights")}


def measure(stage):
    parameters = [parameter for part in stage.model_parts for parameter in part.parameters()]
    return {"norm": sum(float(parameter.detach().square().sum()) for parameter in parameters) ** 0.5}
'''
SCORE = """def score(item, answers):
    return {"first": float(answers[0][0] >= answers[1][0]), "items": 1}


def count(values):
    return len(values)
"""


def test_a_new_metric_of_a_training_is_a_file(bench: Workbench) -> None:
    project = copy_packages(bench.folder / "project")
    (project / "titan/tracking/measures/weights.py").write_text(MEASURE)
    run = bench.stage("measured", {"training": {"steps": 3}, "metrics": {"enable_wandb": True}})
    # A process of its own, since those that are forked have imported the packages already.
    assert bench.run_process(run, cwd=project) == 0, (run.folder / "log.txt").read_text()

    norms = {step: section["norm"] for step, section in records(run, "weights").items()}
    assert list(norms) == [1, 2, 3]
    assert all(math.isfinite(norm) and norm > 1 for norm in norms.values())
    for section, file in MEASURES.items():
        # A pretraining has no pairs.
        wanted = [] if section in ("logps", "rewards") else [file.METRICS.keys()] * 3
        assert wanted == [values.keys() for values in records(run, section).values()]
    stored = read_tracker_record(run.folder, "wandb")
    assert stored is not None
    (recording,) = recordings(run.folder, stored.id)
    assert {step: row["weights/norm"] for step, row in history(recording)} == norms
    listed = "from titan.tracking.metric_names import TRAINING; print([m.meaning for m in TRAINING])"
    assert "2-norm of all weights" in run_there(project, "-c", listed)


def test_a_new_score_is_a_function_beside_its_task(tmp_path: Path) -> None:
    trained = write_trained(tmp_path)
    task = trained.data / "tasks" / "tiny_kind.yaml"
    config = json.loads(task.read_text())
    config["metric_list"] = [
        {"metric": "first", "aggregation": "mean", "higher_is_better": True},
        {"metric": "items", "aggregation": "COUNT", "higher_is_better": True},
    ]
    config["process_results"] = "SCORE"
    text = json.dumps(config).replace('"SCORE"', "!function own.score").replace('"COUNT"', "!function own.count")
    task.write_text(text)
    (task.parent / "own.py").write_text(SCORE)

    (single,) = asked_by({"tasks": ["tiny_kind"], "include_path": str(task.parent)}).single
    assert task_problems(single) == []
    run = evaluation(trained, tmp_path / "evaluate", tasks=["tiny_kind"], models=["sft"])
    main(run.folder / "run.yaml")

    result = read_result(run.folder)
    assert isinstance(result, EvaluateResult)
    scores = result.scores["sft"]["tiny_kind"]
    assert scores["items"] == len(KINDS)
    assert 0 <= scores["first"] <= 1
