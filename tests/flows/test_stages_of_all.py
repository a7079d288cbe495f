"""A kind of stage stands in several tables: one that a table lacks is found here, and not after a training."""

from pathlib import Path

from flows.run_plan import TASKS, task_of
from titanflow.config.build_module import FRAMEWORKS
from titanflow.planning.launch import MODULES
from titanflow.planning.launch_checks import PACKAGES
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import KINDS, StageRun


def test_every_table_has_every_stage() -> None:
    assert tuple(TASKS) == tuple(MODULES) == tuple(PACKAGES) == KINDS
    assert ("prepare", *FRAMEWORKS) == KINDS


def test_a_task_is_called_as_its_stage_and_that_of_publish_as_what_it_does() -> None:
    kinds = {"eval_b": "evaluate", "evaluate": "evaluate", "publish": "publish", "publish_b": "publish"}
    runs = [StageRun(stage=name, kind=kind, experiment="e", run="r", folder=Path(name)) for name, kind in kinds.items()]
    names = [task_of(StagePlan(run.stage, "RUN", "new", run)).name for run in runs]
    assert names == ["eval_b", "evaluate", "push_to_hub", "publish_b"]
