import numpy as np
import pytest
from tiny_stages import MODEL, SEQ_LEN, VOCAB, write_chat_rows
from torchtitan.protocols.train_spec import get_train_spec

from titan.models.registry import train_spec
from titan.train.dataloader import PreparedDataLoader
from titan.train.job_config import build_job_config
from titan.train.train_spec import (
    check_model,
    describe_model,
    may_trim,
    needs_tokenizer,
    stage_train_spec,
    validation_seq_len,
)
from titanflow.common.errors import ConfigError
from titanflow.data.length_groups import GroupedByLength
from titanflow.data.order import permutation
from titanflow.runs.contract import PreparedData, StageRun

CONFIG = {"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": SEQ_LEN, "local_batch_size": 2}}


def stage(folder, sections=None, **fields):
    config = {**CONFIG, **{key: {**CONFIG.get(key, {}), **value} for key, value in (sections or {}).items()}}
    return StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config=config, **fields)


def spec_of(run, overrides=MODEL):
    config = build_job_config(run)
    return stage_train_spec(get_train_spec("llama3"), run, config, overrides), config


def build_loader(run):
    spec, config = spec_of(run)
    return spec.build_dataloader_fn(dp_world_size=1, dp_rank=0, tokenizer=None, job_config=config)


def test_the_model_is_described_as_it_is_built(tmp_path):
    spec, config = spec_of(stage(tmp_path))
    args, parameters = describe_model(spec, config)
    assert (args["n_layers"], args["max_seq_len"], args["vocab_size"]) == (2, SEQ_LEN, VOCAB)
    assert not any(key.startswith("_") for key in args)
    assert parameters == 164_160
    assert get_train_spec("llama3").model_args["debugmodel"].n_layers == 6


def test_what_the_overrides_get_wrong_is_bad_input(tmp_path):
    with pytest.raises(ConfigError, match="KeyError: flavor 'x' not found in model_args for 'llama3'"):
        spec_of(stage(tmp_path, {"model": {"flavor": "x"}}))
    with pytest.raises(ConfigError, match="AttributeError: 'TransformerModelArgs' has no field 'n_layer'"):
        spec_of(stage(tmp_path), {"n_layer": 3})
    with pytest.raises(ConfigError, match=r"no field 'dropout'; fields: (?s:.*)families that have it: dtf, mod, qwen2"):
        spec_of(stage(tmp_path), {"dropout": 0.1})


def test_prepared_rows_are_read_in_the_seeds_order(tmp_path, shared_data):
    loader = build_loader(stage(tmp_path, {"debug": {"seed": 9}}, data=PreparedData(train=shared_data / "train")))
    assert isinstance(loader, PreparedDataLoader)
    assert loader.global_batch_size == 2
    assert loader.order.at(np.arange(5)).tolist() == permutation(len(loader.rows), 9, 0)[:5].tolist()


def test_mock_data_needs_no_data(tmp_path):
    run = stage(tmp_path, {"training": {"mock_data": True}})
    input_dict, _ = next(iter(build_loader(run)))
    assert input_dict["input"].shape == (2, SEQ_LEN)
    assert int(input_dict["input"].max()) < VOCAB


def test_data_that_was_named_and_not_prepared_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="tales isn't prepared"):
        build_loader(stage(tmp_path, {"data": {"name": "tales", "path": "tales.txt"}}))


def test_without_data_torchtitans_own_dataset_is_read(tmp_path):
    with pytest.raises(ValueError, match="Dataset nonsense is not supported"):
        build_loader(stage(tmp_path, {"training": {"dataset": "nonsense"}}))


def test_validation_without_its_data_is_refused(tmp_path, shared_data):
    settings = {"validation": {"seq_len": SEQ_LEN}}
    run = stage(tmp_path, settings, data=PreparedData(train=shared_data / "train"))
    spec, config = spec_of(run)
    with pytest.raises(ConfigError, match="there is no prepared validation data"):
        spec.build_validator_fn(job_config=config)


def test_a_tokenizer_is_built_only_where_something_reads_it(tmp_path, shared_data):
    for run, needed in (
        (stage(tmp_path, data=PreparedData(train=shared_data / "train")), False),
        (stage(tmp_path, {"training": {"mock_data": True}}), False),
        (stage(tmp_path, tokenizer=shared_data / "tokenizer"), True),
        (stage(tmp_path), True),
    ):
        assert needs_tokenizer(run, build_job_config(run)) is needed
        assert (spec_of(run)[0].build_tokenizer_fn is not None) is needed


@pytest.mark.parametrize(("max_seq_len", "refused"), [(SEQ_LEN - 1, True), (SEQ_LEN, False)])
def test_rows_may_be_as_long_as_the_models_positions(tmp_path, max_seq_len, refused):
    run = stage(tmp_path)
    spec, config = spec_of(run, {**MODEL, "max_seq_len": max_seq_len})
    if not refused:
        check_model(spec, run, config)
        return
    with pytest.raises(ConfigError, match=f"found {SEQ_LEN}, but the model's max_seq_len is {max_seq_len}"):
        check_model(spec, run, config)


def test_rows_are_grouped_by_length_where_the_config_asks_for_it(tmp_path):
    rows = PreparedData(train=write_chat_rows(tmp_path / "chats", 100, seed=1))
    loaders = [
        build_loader(stage(tmp_path, {"training": {"group_by_length": asked}}, data=rows)) for asked in (False, True)
    ]
    assert [isinstance(loader.order, GroupedByLength) for loader in loaders] == [False, True]


def test_the_validations_length_is_at_most_the_trainings(tmp_path):
    shorter = stage(tmp_path, {"validation": {"seq_len": 8}}, origins={"validation.seq_len": "p.yaml:4"})
    assert validation_seq_len(shorter, build_job_config(shorter)) == 8
    longer = stage(tmp_path, {"validation": {"seq_len": 64}}, origins={"validation.seq_len": "p.yaml:4"})
    with pytest.raises(ConfigError, match=r"p\.yaml:4: validation\.seq_len: found 64"):
        validation_seq_len(longer, build_job_config(longer))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),
        ({"compile": {"enable": True}}, False),
        ({"parallelism": {"tensor_parallel_degree": 2}}, False),
        ({"parallelism": {"data_parallel_shard_degree": 2}}, True),
    ],
)
def test_batches_are_trimmed_where_nothing_needs_one_width(tmp_path, config, expected):
    assert may_trim(train_spec("llama3"), build_job_config(stage(tmp_path, config))) is expected


def test_a_routed_models_rows_keep_their_width(tmp_path):
    """How many of a row's tokens a layer takes must not depend on the rows beside it."""
    assert not may_trim(train_spec("mod"), build_job_config(stage(tmp_path, {})))
