"""The flow ``run-stage`` as another machine has it, with a plan whose stages are small programs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "flows"))
import small_plan

from flows import stage


def plan_there(experiment, configs, run, settings, runs_here):
    """The same plan again; ``configs`` is its folder, ``experiment`` the program, or a file of its name."""
    assert settings["pretrain.launcher.pool"] is None
    return small_plan.small_plan(Path(configs), pretrain=getattr(small_plan, Path(experiment).name))


stage.make_plan = plan_there
run_stage = stage.run_stage
