import pytest

from titan.train.inheritance import BaseArchitecture
from titan.train.job_config import JobConfig, apply_stage_defaults, build_job_config, share_global_batch
from titanflow.common.errors import ConfigError
from titanflow.config.keys.training import Data
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import checkpoint_digest

DOCUMENTS = "document_attention"


def run(folder, config=None, **fields):
    return StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config=config or {}, **fields)


def test_torchtitans_sections_and_ours_are_one_config(tmp_path):
    config = build_job_config(
        run(tmp_path, {"training": {"steps": 3, "mock_data": True}, "data": {"path": "x.txt", "streaming": True}})
    )
    assert (config.training.steps, config.training.mock_data, config.training.seq_len) == (3, True, 2048)
    assert isinstance(config.data, Data)
    assert config.data.streaming is True
    assert config.launcher.nproc_per_node == 1
    assert config.job.custom_config_module == "titan.train.job_config"


def test_torchtitan_itself_merges_the_module(tmp_path):
    from torchtitan.config import ConfigManager

    config = ConfigManager().parse_args(["--job.custom_config_module=titan.train.job_config", "--training.mock_data"])
    assert config.training.mock_data is True
    assert isinstance(config.data, Data)
    assert JobConfig().training.mock_data is False


def test_the_users_module_comes_on_top(tmp_path, monkeypatch):
    (tmp_path / "users_config.py").write_text(
        "from dataclasses import dataclass, field\n"
        "@dataclass\nclass Training:\n    patience: int = 3\n"
        "@dataclass\nclass Extra:\n    word: str = 'a'\n"
        "@dataclass\nclass JobConfig:\n"
        "    training: Training = field(default_factory=Training)\n"
        "    extra: Extra = field(default_factory=Extra)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sections = {
        "experimental": {"custom_args_module": "users_config"},
        "training": {"patience": 5},
        "extra": {"word": "b"},
    }
    config = build_job_config(run(tmp_path, sections))
    assert (config.training.patience, config.extra.word, config.training.mock_data) == (5, "b", False)


def test_a_module_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"e\.yaml:4: experimental\.custom_args_module: found 'nowhere'"):
        build_job_config(
            run(
                tmp_path,
                {"experimental": {"custom_args_module": "nowhere"}},
                origins={"experimental.custom_args_module": "e.yaml:4"},
            )
        )


def test_an_unknown_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match="local_batchsize"):
        build_job_config(run(tmp_path, {"training": {"local_batchsize": 3}}))


def test_a_stages_folder_tokenizer_and_checkpoints_are_settled(tmp_path):
    stage = run(tmp_path, tokenizer=tmp_path / "tokenizer")
    config = build_job_config(stage)
    apply_stage_defaults(config, stage, None)
    assert config.job.dump_folder == str(tmp_path)
    assert config.model.hf_assets_path == str(tmp_path / "tokenizer")
    assert config.checkpoint.enable is True
    assert config.checkpoint.initial_load_path is None


@pytest.mark.parametrize("section", ["data", "validation_data"])
def test_packed_rows_get_an_attention_that_keeps_documents_apart(tmp_path, section):
    for data, added in (({}, []), ({"packing": "best_fit"}, [DOCUMENTS])):
        stage = run(tmp_path, {"model": {"converters": ["float8"]}, section: data})
        config = build_job_config(stage)
        for _ in range(2):
            apply_stage_defaults(config, stage, None)
            assert config.model.converters == ["float8", *added]


@pytest.mark.parametrize(("attention", "added"), [("sdpa", []), ("flex", [DOCUMENTS]), ("varlen", [DOCUMENTS])])
def test_a_conversation_is_not_cut_at_the_ends_of_sequence_in_it(tmp_path, attention, added):
    stage = run(tmp_path, {"model": {"name": "llama3"}})
    args = {"attn_type": attention, "max_seq_len": 64}
    base = BaseArchitecture("pretrain", "llama3", "debugmodel", args, 64, checkpoint=tmp_path)
    config = build_job_config(stage)
    apply_stage_defaults(config, stage, base)
    assert config.model.converters == added


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        *((f"checkpoint.{key}", True, "found true") for key in ("load_only", "create_seed_checkpoint")),
        ("checkpoint.last_save_in_hf", True, "found true"),
        ("comm.mode", "fake_backend", "found 'fake_backend'"),
    ],
)
def test_what_a_stage_can_not_follow_is_refused(tmp_path, key, value, found):
    section, _, name = key.partition(".")
    stage = run(tmp_path, {section: {name: value}}, origins={key: "p.yaml:9"})
    with pytest.raises(ConfigError, match=rf"p\.yaml:9: {key}: {found}"):
        apply_stage_defaults(build_job_config(stage), stage, None)


@pytest.mark.parametrize(
    ("family", "expected"), [("dtf", "prior or router"), ("llama3", "nothing: this model family has one group")]
)
def test_a_rate_of_an_unknown_group_is_refused(tmp_path, family, expected):
    sections = {"model": {"name": family}, "optimizer": {"group_lr": {"routers": 1e-2}, "early_step_in_backward": True}}
    stage = run(tmp_path, sections, origins={"optimizer.group_lr.routers": "p.yaml:9"})
    with pytest.raises(
        ConfigError, match=rf"p\.yaml:9: optimizer\.group_lr\.routers: unknown.*\s+expected: {expected}"
    ):
        apply_stage_defaults(build_job_config(stage), stage, None)
    stage.config["optimizer"]["group_lr"] = {}
    apply_stage_defaults(build_job_config(stage), stage, None)


def test_rates_of_groups_dont_go_with_steps_in_the_backward_pass(tmp_path):
    sections = {"model": {"name": "mod"}, "optimizer": {"group_lr": {"router": 1e-2}, "early_step_in_backward": True}}
    stage = run(tmp_path, sections)
    with pytest.raises(ConfigError, match=r"optimizer\.early_step_in_backward: found true, with optimizer\.group_lr"):
        apply_stage_defaults(build_job_config(stage), stage, None)


@pytest.mark.parametrize(
    ("rows", "local", "ranks", "expected"),
    [(8, 8, 1, 8), (8, 8, 2, 4), (8, 8, 8, 1), (16, 4, 2, 4), (-1, 8, 4, 8)],
)
def test_ranks_share_the_global_batch(tmp_path, rows, local, ranks, expected):
    stage = run(tmp_path, {"training": {"global_batch_size": rows, "local_batch_size": local}})
    config = build_job_config(stage)
    share_global_batch(config, stage, ranks)
    assert config.training.local_batch_size == expected


@pytest.mark.parametrize(("rows", "local", "ranks"), [(8, 8, 3), (10, 3, 2)])
def test_a_global_batch_that_can_not_be_shared_is_refused(tmp_path, rows, local, ranks):
    stage = run(tmp_path, {"training": {"global_batch_size": rows, "local_batch_size": local}})
    with pytest.raises(ConfigError, match=rf"training\.global_batch_size: found {rows}, with {ranks}"):
        share_global_batch(build_job_config(stage), stage, ranks)


def test_adapters_need_a_base_and_no_other_converter(tmp_path):
    stage = run(tmp_path, {"lora": {"rank": 4}, "model": {"converters": ["quantize.linear.float8"]}})
    with pytest.raises(ConfigError) as caught:
        apply_stage_defaults(build_job_config(stage), stage, None)
    assert [problem.key for problem in caught.value.problems] == ["model.converters", "lora.rank"]


def test_adapters_go_on_only_from_the_base_that_they_began_on(tmp_path):
    export = tmp_path / "base"
    export.mkdir()
    (export / "config.json").write_text("{}")
    base = BaseArchitecture("base", "llama3", "debugmodel", {}, 64, checkpoint=export)
    stage = run(tmp_path, {"lora": {"rank": 4}}, base=export, base_digest=checkpoint_digest(export))
    config = build_job_config(stage)
    apply_stage_defaults(config, stage, base)
    assert config.model.converters == ["lora"]
    (export / "config.json").write_text("{ }")
    with pytest.raises(ConfigError, match="its files have changed"):
        apply_stage_defaults(build_job_config(stage), stage, base)


def test_a_stage_that_needs_a_gpu_doesnt_train_without(tmp_path, monkeypatch):
    from torchtitan.tools import utils

    stage = run(tmp_path, {"launcher": {"device": "cuda"}}, origins={"launcher.device": "mine.yaml:3"})
    monkeypatch.setattr(utils, "device_type", "cpu")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: launcher\.device: found 'cuda', and torch finds no GPU"):
        apply_stage_defaults(build_job_config(stage), stage, None)
    monkeypatch.setattr(utils, "device_type", "cuda")
    apply_stage_defaults(build_job_config(stage), stage, None)
