"""Stages of models with routed layers on packed rows, as processes."""

import shutil
from dataclasses import replace

import pytest
from tiny_adapters import finished_base
from tiny_stages import SEQ_LEN, VOCAB, records, write_chat_rows

from titan.models.documents import DOCUMENT_ATTENTION
from titan.models.registry import train_spec
from titanflow.runs.contract import PreparedData

pytestmark = pytest.mark.slow

SETTINGS = {
    "training": {"steps": 4, "seq_len": SEQ_LEN},
    "model": {"flavor": "debugmodel", "converters": [DOCUMENT_ATTENTION]},
    "validation": {"enable": True, "freq": 3, "local_batch_size": 4},
    "lr_scheduler": {"warmup_steps": 0},
    "optimizer": {"lr": 1e-3, "group_lr": {"router": 1e-2}},
}
TWO_RANKS = {
    "training": {"local_batch_size": 2},
    "activation_checkpoint": {"mode": "selective", "selective_ac_option": "op"},
}
ARGS = {"vocab_size": VOCAB, "n_layers": 2, "dim": 64, "hidden_dim": 96}


@pytest.mark.parametrize("family", ["tdtf"])
def test_two_ranks_have_the_losses_of_one_process_on_packed_rows(bench, tmp_path, family):
    """With accumulated gradients, recomputed activations and a router that learns faster.

    The base's scores are far apart: of those of initial weights two may tie within rounding, and either is right.
    """
    args = replace(train_spec(family).model_args["debugmodel"], max_seq_len=SEQ_LEN, **ARGS)
    base = finished_base(tmp_path / "base", family, args, config={"training": {"seq_len": SEQ_LEN}})
    chats = write_chat_rows(tmp_path / "chats", 200, seed=2, packed=True)
    runs = []
    for name, settings, ranks in (("one", {}, None), ("two", TWO_RANKS, 2)):
        config = [SETTINGS, {"model": {"name": family}}, settings]
        data = PreparedData(train=chats, validation=chats)
        run = bench.stage(name, *config, stage="sft", base=base, model_overrides={}, data=data)
        assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
        runs.append(run)
    one, two = runs
    assert list(records(one)) == [1, 2, 3, 4]
    for key in ("loss", "validation_loss"):
        assert records(two, key) == pytest.approx(records(one, key), rel=2e-6)
    for step, statistics in records(one, "router").items():
        assert records(two, "router")[step] == pytest.approx(statistics, rel=1e-4, abs=1e-6)


def test_a_resumed_training_has_the_losses_and_the_sharpness_of_the_whole_one(bench):
    """The sharpness is scheduled and in no checkpoint."""
    settings = {
        "model": {"name": "tdtf"},
        "training": {"steps": 6},
        "checkpoint": {"interval": 3, "last_save_model_only": False},
    }
    run = bench.stage("run", SETTINGS, settings, model_overrides={**ARGS, "beta_warmup_steps": 1})
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    whole = {key: records(run, key) for key in ("loss", "validation_loss", "router")}
    shutil.rmtree(run.folder / "checkpoint" / "step-6")
    (run.folder / "result.json").unlink()
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    assert "Training starts at step 4" in (run.folder / "log.txt").read_text()
    assert {key: records(run, key) for key in whole} == whole
    assert [round(whole["router"][step]["beta_ce"], 3) for step in (1, 6)] == [0.3, 6.0]
