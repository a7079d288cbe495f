"""A stage is named in several tables: one that is forgotten in a table is found here, and not after a training."""

from flows.run_plan import TASKS
from titanflow.config.build_module import FRAMEWORKS
from titanflow.config.module import STAGE_OF
from titanflow.planning.launch import MODULES
from titanflow.planning.launch_checks import PACKAGES
from titanflow.runs.contract import STAGES


def test_every_table_has_every_stage() -> None:
    assert tuple(TASKS) == tuple(MODULES) == tuple(PACKAGES) == STAGES
    assert ("prepare", *FRAMEWORKS) == ("prepare", *dict.fromkeys(STAGE_OF.values())) == STAGES
