from pathlib import Path

import pytest
from finished_stage import write_outside_base

from titanflow.config.checks.module import check_module


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


@pytest.mark.parametrize(
    ("setting", "found", "instead"),
    [
        ("memory_estimation.enable=true", "found true", "`titanflow plan` forecasts the memory"),
        ("memory_estimation.disable_fake_mode=true", "found true", "a script of torchtitan's"),
        ("model.tokenizer_path=./tokenizer", 'found "./tokenizer"', "write `tokenizer.path`"),
        ("comm.mode=fake_backend", "found 'fake_backend'", "expected: default"),
        (
            "metrics.save_tb_folder=../../tb",
            "found '../../tb', which leads out of the stage's folder",
            "expected: a name",
        ),
        ("profiling.save_traces_folder=/tmp/traces", "found '/tmp/traces', which leads out", "expected: a name"),
        ("profiling.save_memory_snapshot_folder=a/../../b", "found 'a/../../b', which leads out", "expected: a name"),
        ("comm.save_traces_folder=..", "found '..', which leads out", "expected: a name"),
        ("comm.save_traces_file_prefix=../rank_", "found '../rank_', which leads out", "expected: a name"),
        ("job.save_config_file=/etc/passwd", "found '/etc/passwd', which leads out", "expected: a name"),
        (
            "metrics.save_tb_folder=./checkpoint/tb",
            "found './checkpoint/tb', which the stage has for itself",
            "another name",
        ),
        ("job.save_config_file=run.yaml", "found 'run.yaml', which the stage has for itself", "another name"),
    ],
)
def test_what_no_stage_reads_is_refused(write, load, mistakes, setting: str, found: str, instead: str) -> None:
    message = mistakes(write(), f"pretrain.{setting}")
    assert f"--set pretrain.{setting}: pretrain.{setting.partition('=')[0]}: {found}" in message
    assert instead in message
    load(write(), "pretrain.memory_estimation.enable=false", "pretrain.comm.mode=default")


def test_one_checkpoint_is_too_few(write, mistakes, load) -> None:
    message = mistakes(write(), "pretrain.checkpoint.keep_latest_k=1")
    assert "pretrain.checkpoint.keep_latest_k: found 1" in message
    assert "expected: 2 or more, or 0 to keep all" in message
    load(write(), "pretrain.checkpoint.keep_latest_k=0", "sft.checkpoint.keep_latest_k=2")


@pytest.mark.parametrize(
    ("excluded", "found"),
    [("[optimizer]", "found 'optimizer' without 'lr_scheduler'"), ("[model]", "found 'model'"), ("[x]", "found 'x'")],
)
def test_4168_a_run_is_not_resumed_without_parts_that_the_others_need(write, mistakes, load, excluded, found) -> None:
    message = mistakes(write(), f"pretrain.checkpoint.exclude_from_loading={excluded}")
    assert f"pretrain.checkpoint.exclude_from_loading: {found}" in message
    assert "expected: some of optimizer, lr_scheduler, dataloader, train_state, and lr_scheduler wherever" in message
    load(write(), "pretrain.checkpoint.exclude_from_loading=[optimizer, lr_scheduler]")


def test_adapters_have_rows_for_new_tokens_where_embeddings_and_head_are_trained_whole(
    write, load, tmp_path: Path
) -> None:
    base = write_outside_base(tmp_path / "before")
    path = write(experiments__exp=f"modules: {{sft: {{config: sft.yaml, base: {base}}}}}")
    sft = load(path, 'sft.tokenizer.new_special_tokens=["<|x|>"]').modules["sft"]
    assert check_module(sft) == []
    sft.config["lora"]["rank"] = 8
    (problem,) = check_module(sft)
    assert "sft.tokenizer.new_special_tokens: found new tokens, but adapters don't train embedding" in str(problem)
    assert "lora.modules_to_save: [tokens] trains them too" in str(problem)
    for saved, problems in (["tok_embeddings"], 1), (["tok_embeddings", "output"], 0):
        sft.config["lora"]["modules_to_save"] = saved
        assert len(check_module(sft)) == problems
    load(path, 'sft.tokenizer.new_special_tokens=["<|x|>"]', "sft.lora.rank=8", "sft.lora.modules_to_save=[tokens]")


def test_what_a_model_in_transformers_format_cant_give_is_refused(write, mistakes) -> None:
    checkpoint = "pretrain.checkpoint"
    for settings, key in (
        (["initial_load_in_hf=true", "initial_load_model_only=false"], "initial_load_model_only: found false"),
        (["initial_load_in_hf_quantized=true"], "initial_load_in_hf_quantized: found true"),
    ):
        assert f"{checkpoint}.{key}" in mistakes(write(), *(f"{checkpoint}.{one}" for one in settings))


def test_keys_that_name_no_tokenizer_or_weights_are_warned_of(write, load) -> None:
    settings = {
        "sft.checkpoint.initial_load_in_hf": ("true", "sft starts from its base's weights"),
        "sft.base_revision": ("v1", "base names no repository of the Hub"),
        "pretrain.model.hf_assets_revision": ("v1", "model.hf_assets_path names no repository of the Hub"),
    }
    warnings = load(write(), *(f"{key}={value}" for key, (value, _) in settings.items())).warnings
    for key, (_, reason) in settings.items():
        assert any(f"{key} (--set" in one and reason in one for one in warnings), key
