"""configs/experiments/chain.yaml, without training it."""

from __future__ import annotations

from pathlib import Path

from titanflow.planning.plan import make_plan


def test_the_shipped_chain_needs_no_file_and_each_stage_follows_its_base(tmp_path: Path) -> None:
    plan = make_plan("chain", overrides=[f"workspace={tmp_path}", "launcher.device=cpu"])
    bases = {stage.stage: stage.run.base.name for stage in plan.stages if stage.run.base is not None}
    assert bases == {"mid": "pretrain", "sft": "mid", "sft_slow": "mid", "prefer": "sft"}
    assert [stage.kind for stage in plan.stages] == [
        *("prepare", "pretrain", "pretrain", "sft", "sft", "prefer", "evaluate", "publish"),
    ]


def test_a_part_of_it_is_scored_on_the_way_as_the_evaluation_that_it_leaves_out_says(tmp_path: Path) -> None:
    plan = make_plan("chain", overrides=[f"workspace={tmp_path}", "launcher.device=cpu", "only=[sft]"])
    assert [stage.stage for stage in plan.stages] == ["prepare", "pretrain", "mid", "sft"]
    pretrain = plan.stage("pretrain")
    assert pretrain is not None
    assert pretrain.during is not None
    assert pretrain.during.config["tasks"] == ["stdlib_bits_per_byte"]
