import pytest


def test_checkpoints_that_stay_on_are_no_news(write, load) -> None:
    assert load(write()).warnings == []
    assert load(write(modules__base="metrics: {log_freq: 5}")).warnings == []


def test_what_a_stage_sets_itself_is_said_to_have_no_effect(write, load) -> None:
    warnings = load(write(), "sft.checkpoint.enable=false", "sft.checkpoint.initial_load_path=here").warnings
    assert len(warnings) == 2
    assert "sft.checkpoint.initial_load_path (--set sft.checkpoint.initial_load_path=here) has no effect" in warnings[0]
    assert "sft.checkpoint.enable (--set sft.checkpoint.enable=false) has no effect" in warnings[1]


@pytest.mark.parametrize("key", ["create_seed_checkpoint", "load_only", "last_save_in_hf"])
def test_what_a_stage_cant_do_is_refused_in_the_plan(write, mistakes, key: str) -> None:
    message = mistakes(write(), f"pretrain.checkpoint.{key}=true")
    assert f"--set pretrain.checkpoint.{key}=true: pretrain.checkpoint.{key}: found true" in message
