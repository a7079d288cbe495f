"""Plans of the tiny experiment, and edits of its files."""

from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan


def refusal(configs: Path, *settings: str) -> str:
    """Why the experiment can't be planned with these settings."""
    with pytest.raises(ConfigError) as caught:
        make_plan("tiny", configs, overrides=settings)
    return str(caught.value)


def edit(path: Path, old: str, new: str) -> None:
    """Puts one text in the place of another that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def state(plan: Plan) -> str:
    """What the plan says of the evaluation."""
    return next(stage.state for stage in plan.stages if stage.stage == "evaluate")
