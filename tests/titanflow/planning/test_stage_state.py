"""What a plan makes of a stage that was made from other inputs, was interrupted, or whose outputs changed."""

import os
from pathlib import Path

import pytest
from finished_without_training import finish, finish_stage, interrupt
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import check_stale
from titanflow.runs.manifest import Manifest

LR = "pretrain.optimizer.lr=0.02"


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def states(plan: Plan) -> list[str]:
    return [stage.state for stage in plan.stages]


def test_what_is_stale_is_refused_with_what_changed_and_the_ways_out(configs: Path) -> None:
    finish(configs)
    plan = make_plan("tiny", configs, overrides=[LR])
    before = {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as raised:
        check_stale(plan)
    said = str(raised.value)
    assert f"pretrain: pretrain.optimizer.lr: 0.01 → 0.02 (--set {LR})" in said
    assert "sft: pretrain changed" in said
    assert "publish: pretrain, sft and evaluate changed" in said
    assert all(way in said for way in ("--on-stale rerun", "--on-stale keep", "--run NAME"))
    assert before == {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()}


def test_rerun_makes_it_again_and_what_it_made_is_moved_aside(configs: Path) -> None:
    finish(configs)
    again = [LR, "on_stale=rerun"]
    plan = finish(configs, overrides=again)
    check_stale(plan)
    assert states(plan) == ["CACHED", "STALE", "STALE", "STALE", "STALE"]
    assert sorted(path.name for path in (plan.folder / "superseded").iterdir()) == [
        f"{stage}-1" for stage in ("evaluate", "pretrain", "publish", "sft")
    ]
    assert states(make_plan("tiny", configs, overrides=[LR])) == ["CACHED"] * 5


def test_keep_uses_what_it_made_and_what_comes_after_belongs_to_that(configs: Path) -> None:
    before = finish(configs)
    plan = make_plan("tiny", configs, overrides=[LR, "on_stale=keep"])
    check_stale(plan)
    assert states(plan) == ["CACHED"] * 5
    assert [stage.stage for stage in plan.stages if stage.kept] == ["pretrain"]
    pretrain, sft = plan.stages[1:3]
    assert (pretrain.reason, sft.reason) == ("kept: 1 value differs", "nothing changed")
    assert [change.key for change in pretrain.changes] == ["pretrain.optimizer.lr"]
    assert pretrain.run.fingerprint == before.stages[1].run.fingerprint
    added = make_plan("tiny", configs, overrides=[LR, "on_stale=keep", "publish.license=mit"])
    assert [stage.stage for stage in added.stages if stage.kept] == ["pretrain", "publish"]


def test_a_stage_that_was_never_run_runs_after_one_that_is_stale(configs: Path) -> None:
    finish(configs, upto="pretrain")
    plan = make_plan("tiny", configs, overrides=[LR])
    assert states(plan) == ["CACHED", "STALE", "RUN", "RUN", "RUN"]
    assert plan.stages[2].reason == "after pretrain"
    kept = make_plan("tiny", configs, overrides=[LR, "on_stale=keep"])
    assert [(stage.state, stage.reason) for stage in kept.stages[1:3]] == [
        ("CACHED", "kept: 1 value differs"),
        ("RUN", "new"),
    ]


def test_an_interrupted_training_resumes_from_the_same_inputs_alone(configs: Path) -> None:
    plan = finish(configs, upto="prepare")
    interrupt(plan.stages[1], Manifest.open(plan.folder))
    resumed = make_plan("tiny", configs).stages[1]
    assert (resumed.state, resumed.reason) == ("RESUME", "from step 8")
    changed = make_plan("tiny", configs, overrides=[LR, "on_stale=keep"])
    stale = changed.stages[1]
    assert (stale.state, stale.reason) == (
        "STALE",
        "1 value changed: pretrain.optimizer.lr; it was interrupted after step 8",
    )
    with pytest.raises(ConfigError, match="made from other inputs, and whose output can't be kept"):
        check_stale(changed)


def test_what_an_older_version_recorded_says_that_it_names_no_inputs(configs: Path) -> None:
    plan = finish(configs)
    manifest = Manifest.open(plan.folder)
    for record in manifest.stages.values():
        record.inputs = None
    (plan.folder / "manifest.json").write_text(manifest.model_dump_json())
    assert states(make_plan("tiny", configs)) == ["CACHED"] * 5
    stale = make_plan("tiny", configs, overrides=[LR]).stages[1]
    assert (stale.state, stale.changes) == ("STALE", [])
    assert "weren't recorded when it ran" in stale.reason


@pytest.mark.parametrize("name", ["checkpoint/step-8/__0_0.distcp", "export/model.safetensors"])
def test_an_output_with_another_byte_is_found_though_its_size_is_the_same(configs: Path, name: str) -> None:
    plan = finish(configs)
    path = plan.folder / "pretrain" / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    pretrain, sft = make_plan("tiny", configs).stages[1:3]
    said = f"pretrain/{name} changed since it was written"
    # A checkpoint that changed is no place to go on from.
    expected = ("RUN", said) if name.startswith("checkpoint") else ("RESUME", f"from step 8: {said}")
    assert (pretrain.state, pretrain.reason) == expected
    assert (sft.state, sft.reason) == ("RUN", "after pretrain")


def test_what_is_as_it_was_is_believed_wherever_it_lies(configs: Path) -> None:
    plan = finish(configs)
    path = plan.folder / "pretrain" / "export" / "model.safetensors"
    os.utime(path, (1, 1))
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    assert states(make_plan("tiny", configs)) == ["CACHED"] * 5


def test_a_killed_run_between_the_folder_and_its_record_is_judged_by_the_folder(configs: Path) -> None:
    plan = finish(configs)
    manifest = Manifest.open(plan.folder)
    changed = make_plan("tiny", configs, overrides=["publish.license=mit", "on_stale=rerun"])
    finish_stage(changed.stages[-1], Manifest.open(plan.folder))
    # The record of before, with the folder of after.
    manifest.record_kept({"publish": changed.stages[-1].changes})
    publish = make_plan("tiny", configs, overrides=["publish.license=mit"]).stages[-1]
    assert (publish.state, publish.reason) == ("RUN", "its end wasn't recorded")
