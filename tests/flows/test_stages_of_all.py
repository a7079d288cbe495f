"""A kind of stage stands in several tables: one that a table lacks is found here, and not after a training."""

from flows.run_plan import TASKS
from titanflow.config.build_module import FRAMEWORKS
from titanflow.planning.launch import MODULES
from titanflow.planning.launch_checks import PACKAGES
from titanflow.runs.contract import KINDS


def test_every_table_has_every_stage() -> None:
    assert tuple(TASKS) == tuple(MODULES) == tuple(PACKAGES) == KINDS
    assert ("prepare", *FRAMEWORKS) == KINDS
