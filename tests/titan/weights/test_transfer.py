"""A routed model that starts from a dense one's weights."""

import json
import logging

import pytest
import torch
from tiny_exports import POSITIONS, VOCAB, save_checkpoint, sensitised, tiny_args
from tiny_stages import records

from titan.models.huggingface import hugging_face_model
from titan.models.registry import train_spec
from titan.weights.dense_to_routed import load_dense
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.common.errors import ConfigError
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

SIZE = {"dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 96}
NEW = [name for names in PARAMETER_GROUPS["mod"].values() for name in names]


@pytest.fixture
def dense():
    return sensitised("qwen2", tiny_args("qwen2", **SIZE))


@pytest.fixture(params=["checkpoint", "transformers"])
def saved(request, dense, tmp_path):
    """The dense model's weights, as a stage saves them and as transformers does."""
    if request.param == "checkpoint":
        return save_checkpoint(dense, tmp_path / "step-1")
    common = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": dense.model_args.norm_eps,
        "hidden_act": "silu",
    }
    family = hugging_face_model("qwen2", dense.model_args)
    model = family.model_class()(family.make_config(dense.model_args, common))
    model.load_state_dict(train_spec("qwen2").state_dict_adapter(dense.model_args, None).to_hf(dense.state_dict()))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def routed(**changes):
    torch.manual_seed(1)
    args = train_spec("mod").model_args["debugmodel"]
    args = type(args)(**{**SIZE, "vocab_size": VOCAB, "rope_theta": args.rope_theta, **changes})
    model = train_spec("mod").model_cls(args)
    with torch.no_grad():
        model.init_weights()
    return model


def load(model, path):
    adapter = train_spec("mod").state_dict_adapter(model.model_args, None)
    return load_dense(model, model.state_dict(), path, adapter, NEW)


def test_what_both_have_is_copied_and_the_rest_is_drawn_and_named(dense, saved, caplog):
    model = routed()
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        assert load(model, saved)
    wanted = dense.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, wanted[name] if name in wanted else drawn[name]), name
    assert set(wanted) < set(drawn)
    assert "layers.*.router.weight (2)" in caplog.text
    assert "layers.*.causal_router.bias (2)" in caplog.text


def test_a_routed_model_whose_layers_compute_every_token_is_the_dense_one(dense, saved, monkeypatch):
    model = routed(capacity=1.0)
    load(model, saved)
    tokens = torch.randint(VOCAB, (2, 32))
    monkeypatch.setattr(torch, "sigmoid", torch.ones_like)
    torch.testing.assert_close(model.train()(tokens), dense(tokens), rtol=1e-4, atol=1e-4)


def test_another_shape_is_refused(saved):
    with pytest.raises(ConfigError, match=r"checkpoint\.initial_load_path: .* of shape \(96, 64\), the model's is"):
        load(routed(hidden_dim=128), saved)


def test_an_argument_that_no_shape_shows_is_refused(dense, tmp_path):
    """RoPE's theta, where it is written beside the weights."""
    family = hugging_face_model("qwen2", dense.model_args)
    common = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = family.make_config(dense.model_args, {**common, "num_key_value_heads": 2, "hidden_act": "silu"})
    family.model_class()(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["rope_parameters"]["rope_theta"] = 77.0
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"rope_theta=77\.0"):
        load(routed(), tmp_path)


def test_a_model_with_routers_is_no_dense_one(tmp_path):
    trained = routed()
    assert not load(routed(), save_checkpoint(trained, tmp_path / "step-1"))


def test_a_stage_starts_from_a_finished_dense_one_on_any_number_of_ranks(bench):
    settings = {"training": {"steps": 3, "local_batch_size": 4}, "lr_scheduler": {"warmup_steps": 0}}

    def stage(name, family, *configs, ranks=None):
        model = {"model": {"name": family, "flavor": "debugmodel"}}
        run = bench.stage(name, model, settings, *configs, model_overrides={"vocab_size": 256})
        assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
        return run

    base = stage("dense", "qwen2", {"training": {"steps": 20}})
    start = {"checkpoint": {"initial_load_path": str(base.folder)}}
    one, two = stage("one", "mod", start), stage("two", "mod", start, ranks=2)
    assert "layers.*.router.weight (2)" in (one.folder / "log.txt").read_text()
    # The same start. Later a router may choose another of two tokens that weigh alike but for rounding.
    assert records(two)[1] == pytest.approx(records(one)[1], rel=1e-5)
    assert records(two) == pytest.approx(records(one), rel=1e-3)
    scratch = stage("scratch", "mod")
    assert records(one)[1] < records(scratch)[1] - 0.1
    assert read_result(base.folder).step == 20
