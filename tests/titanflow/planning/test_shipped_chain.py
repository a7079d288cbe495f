"""configs/experiments/chain.yaml, without training it."""

from __future__ import annotations

from pathlib import Path

import pytest

from titanflow.planning.plan import make_plan


def test_the_shipped_chain_needs_no_file_and_each_stage_follows_its_base(tmp_path: Path) -> None:
    plan = make_plan("chain", overrides=[f"workspace={tmp_path}", "launcher.device=cpu"])
    bases = {stage.stage: stage.run.base.name for stage in plan.stages if stage.run.base is not None}
    assert bases == {"mid": "pretrain", "sft": "mid", "sft_slow": "mid", "prefer": "sft"}
    assert [stage.kind for stage in plan.stages] == [
        *("prepare", "pretrain", "pretrain", "sft", "sft", "prefer", "evaluate", "publish"),
    ]


@pytest.mark.parametrize(
    ("stage", "made"),
    [("pretrain", ["pretrain"]), ("sft_slow", ["pretrain", "mid", "sft_slow"]), ("evaluate", None), ("publish", None)],
)
def test_each_part_of_the_shipped_chain_can_be_planned(tmp_path: Path, stage: str, made: list[str] | None) -> None:
    plan = make_plan("chain", overrides=[f"workspace={tmp_path}", "launcher.device=cpu", f"only=[{stage}]"])
    names = [one.stage for one in plan.stages if one.stage != "prepare"]
    assert made is None or names == made
    assert names[-1] == stage
    scored = {one.stage: one.during.config for one in plan.stages if one.during is not None}
    # Neither the models nor the mean of the evaluation are there while it trains.
    assert list(scored) == [name for name in ("prefer",) if name in names]
    assert all((config["models"], config["means"]) == ({}, {}) for config in scored.values())
