from pathlib import Path

import pytest
from finished_stage import finish_training
from night_runs import note, train, write_night
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.nightly.night import Night
from titanflow.nightly.planning import as_parent
from titanflow.planning.begin import record_start
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest

TONIGHT = ["nightly.date=2026-11-05"]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def runs(configs: Path) -> Path:
    return configs.parent / "runs" / "tiny"


def tonight(plan: Plan) -> Night:
    assert plan.night is not None
    return plan.night


def reason(plan: Plan) -> str:
    stage = plan.stage("pretrain")
    assert stage is not None
    return stage.reason


def fingerprint(plan: Plan) -> str:
    stage = plan.stage("pretrain")
    assert stage is not None
    return stage.run.fingerprint


def test_a_run_is_a_night_s_where_its_date_is_set(configs: Path) -> None:
    assert make_plan("tiny", configs).night is None
    plan = make_plan("tiny", configs, overrides=TONIGHT)
    assert (plan.run, reason(plan)) == ("2026-11-05", "new; starts anew")
    assert plan.as_json()["night"]["date"] == "2026-11-05"
    # Its inputs are those of any run: only the folder keeps it from being last night's.
    assert fingerprint(plan) == fingerprint(make_plan("tiny", configs))


def test_a_pretraining_that_has_a_base_is_not_continued_whatever_its_place(configs: Path) -> None:
    night = write_night(runs(configs), "2026-11-04")
    mid = night / "mid"
    StageRun(stage="mid", kind="pretrain", experiment="e", run=night.name, folder=mid, base=night / "other").write()
    finish_training(mid)
    note(night, "mid", kind="pretrain", finished="2026-11-04T03:00:00+00:00")
    assert as_parent(night) is None
    checkpoint = train(night)
    parent = as_parent(night)
    assert parent is not None
    assert parent.checkpoint == checkpoint


@pytest.mark.parametrize("day", ["yesterday", "2026-11-31", "2026-1-5"])
def test_a_date_that_is_none_is_refused(configs: Path, day: str) -> None:
    with pytest.raises(ConfigError, match=r"nightly.date: found .*\n.*a day, as 2026-11-21"):
        make_plan("tiny", configs, overrides=[f"nightly.date={day}"])


def test_a_night_s_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "night.json").write_text("{")
    with pytest.raises(ConfigError, match=r"/night\.json: can't be read: "):
        Night.read(tmp_path)


def test_the_newest_earlier_night_that_trained_is_continued(configs: Path) -> None:
    for day in ("2026-11-01", "2026-11-02", "2026-11-06"):
        train(write_night(runs(configs), day), skip_rows=100)
    write_night(runs(configs), "2026-11-03", state="failed")
    (train(write_night(runs(configs), "2026-11-04")) / ".metadata").unlink()
    plan = make_plan("tiny", configs, overrides=[*TONIGHT, "nightly.start=continue"])
    parent = tonight(plan).parent
    assert parent == as_parent(runs(configs) / "2026-11-02")
    assert parent is not None
    assert (parent.run, parent.rows, parent.digest) == ("2026-11-02", 140, "digest of 2026-11-02")
    assert reason(plan) == "new; continues 2026-11-02 (step 10)"
    stage = plan.stage("pretrain")
    assert stage is not None
    assert stage.run.config["training"]["skip_rows"] == 140
    assert stage.run.config["checkpoint"]["initial_load_path"] == str(parent.checkpoint)
    anew = make_plan("tiny", configs, overrides=TONIGHT)
    assert fingerprint(plan) != fingerprint(anew)


def test_a_continued_night_begins_with_the_last_one_s_checkpoint_whatever_the_first_began_with(configs: Path) -> None:
    train(write_night(runs(configs), "2026-11-04"))
    settings = [*TONIGHT, "nightly.start=continue"]
    stage = make_plan("tiny", configs, overrides=settings).stage("pretrain")
    model = configs / "models" / "tiny.yaml"
    model.write_text(f"{model.read_text()}checkpoint: {{initial_load_in_hf: true, initial_load_path: owner/model}}\n")
    again = make_plan("tiny", configs, overrides=settings).stage("pretrain")
    assert stage is not None
    assert again is not None
    assert again.run.config["checkpoint"] == stage.run.config["checkpoint"]


def test_the_first_night_has_nothing_to_continue(configs: Path) -> None:
    plan = make_plan("tiny", configs, overrides=[*TONIGHT, "nightly.start=continue"])
    assert reason(plan) == "new; starts anew: no earlier night has finished its training"


def test_a_night_that_has_begun_keeps_its_parent_whatever_is_trained_meanwhile(configs: Path) -> None:
    train(write_night(runs(configs), "2026-11-02"))
    settings = [*TONIGHT, "nightly.start=continue"]
    first = make_plan("tiny", configs, overrides=settings)
    first.write()
    train(write_night(runs(configs), "2026-11-04"))
    # Also without being told that it is a night.
    for again in (make_plan("tiny", configs, overrides=settings), make_plan("tiny", configs, "2026-11-05")):
        assert tonight(again).parent == tonight(first).parent
        assert fingerprint(again) == fingerprint(first)


def test_another_content_of_the_parent_is_another_input(configs: Path) -> None:
    folder = write_night(runs(configs), "2026-11-02")
    train(folder)
    settings = [*TONIGHT, "nightly.start=continue"]
    before = fingerprint(make_plan("tiny", configs, overrides=settings))
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("digest of", "another digest of"))
    assert fingerprint(make_plan("tiny", configs, overrides=settings)) != before


def test_the_manifest_names_the_parent_of_the_pretraining_alone(configs: Path) -> None:
    train(write_night(runs(configs), "2026-11-02"))
    plan = make_plan("tiny", configs, overrides=[*TONIGHT, "nightly.start=continue"])
    for stage in plan.stages:
        record_start(stage, Manifest.open(plan.folder))
    stages = Manifest.open(plan.folder).stages
    assert stages["pretrain"].parents == {"2026-11-02/pretrain": "digest of 2026-11-02"}
    assert stages["sft"].parents == {}
