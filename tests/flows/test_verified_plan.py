"""The plan that a run follows, once it holds the folder."""

import os
from pathlib import Path

import pytest
from finished_without_training import finish, finish_stage
from tiny_experiment import write_tiny_experiment

from flows.verified_plan import verified_plan
from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.runs.manifest import Manifest


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def test_a_byte_that_was_changed_behind_the_time_is_found_before_a_stage_reads_it(configs: Path) -> None:
    plan = finish(configs, upto="pretrain")
    path = plan.folder / "pretrain/checkpoint/step-8/__0_0.distcp"
    state = path.stat()
    written = path.read_bytes()
    path.write_bytes(bytes([written[0] ^ 1]) + written[1:])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    planned = make_plan("tiny", configs)
    assert [stage.state for stage in planned.stages[1:3]] == ["CACHED", "RUN"]
    said: list[str] = []
    followed = verified_plan(planned, is_old=False, say=said.append)
    assert (followed.stages[1].state, followed.stages[1].reason) == (
        "RUN",
        "pretrain/checkpoint/step-8/__0_0.distcp changed since it was written",
    )
    assert said == ["pretrain/checkpoint/step-8/__0_0.distcp changed since it was written: its stage runs again"]
    # From now on a plan knows it, too, until the stage has run again or the bytes are back.
    assert make_plan("tiny", configs).stages[1].state == "RUN"
    path.write_bytes(written)
    assert make_plan("tiny", configs).stages[1].state == "CACHED"


def test_where_nothing_reads_an_output_nothing_is_read(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(configs)
    monkeypatch.setattr(Manifest, "verify", lambda self, stage: pytest.fail("read"))
    plan = make_plan("tiny", configs)
    assert verified_plan(plan, is_old=False) is plan


def test_a_file_that_was_touched_is_read_once_and_then_believed(configs: Path) -> None:
    plan = finish(configs, upto="pretrain")
    path = plan.folder / "pretrain/export/model.safetensors"
    os.utime(path, (1, 1))
    verified_plan(make_plan("tiny", configs), is_old=False)
    record = Manifest.open(plan.folder).stages["pretrain"].outputs["pretrain/export/model.safetensors"]
    assert record.is_untouched(path)


def test_after_another_run_the_plan_is_made_anew(configs: Path) -> None:
    old = make_plan("tiny", configs)
    finish(configs)
    assert {stage.state for stage in verified_plan(old, is_old=True).stages} == {"CACHED"}
    other = make_plan("tiny", configs, "other")
    finish(configs, run="other", overrides=["pretrain.optimizer.lr=0.02"])
    with pytest.raises(ConfigError, match="made from other inputs"):
        verified_plan(other, is_old=True)


def test_what_is_kept_is_on_record_until_it_isnt(configs: Path) -> None:
    plan = finish(configs)
    keep = make_plan("tiny", configs, overrides=["pretrain.optimizer.lr=0.02", "on_stale=keep"])
    verified_plan(keep, is_old=False)
    (change,) = Manifest.open(plan.folder).stages["pretrain"].kept
    assert (change.key, change.old, change.new) == ("pretrain.optimizer.lr", 0.01, 0.02)
    verified_plan(make_plan("tiny", configs), is_old=False)
    assert Manifest.open(plan.folder).stages["pretrain"].kept == []
    rerun = make_plan("tiny", configs, overrides=["pretrain.optimizer.lr=0.02", "on_stale=rerun"])
    finish_stage(rerun.stages[1], Manifest.open(plan.folder))
    assert Manifest.open(plan.folder).stages["pretrain"].kept == []
