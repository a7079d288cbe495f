"""What a plan is made from, so that another machine can make the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from titanflow.plan.stage_plan import Plan, StagePlan


class RunRequest(NamedTuple):
    """The arguments of :func:`titanflow.plan.plan.make_plan`, as a flow has them."""

    experiment: str
    configs: str | None
    run: str | None
    settings: Mapping[str, Any]

    def elsewhere(self, plan: Plan, stage: StagePlan) -> RunRequest:
        """The request by which another machine makes the same ``plan``, with the ``stage`` not in a pool."""
        module = plan.config.stage(stage.stage)
        own: dict[str, Any] = {f"{module.name}.launcher.pool": None} if module is not None else {}
        # Another machine has another $USER.
        own |= {key: name for key, name in plan.config.who.items() if name}
        settings = {**self.settings, "workspace": str(plan.config.workspace.resolve()), **own}
        configs = str(Path(self.configs).resolve()) if self.configs else None
        experiment = Path(self.experiment)
        named = str(experiment.resolve()) if experiment.is_file() else self.experiment
        return RunRequest(named, configs, plan.run, settings)
