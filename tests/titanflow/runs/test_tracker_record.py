import pytest

from titanflow.runs.contract import StageRun
from titanflow.runs.tracker_record import read_tracker_record, record_file, tracker_mode, tracker_record


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    return StageRun(stage="sft", experiment="stdlib", run="monday", folder=folder)


def noted(run):
    record = tracker_record(run, "wandb")
    record_file(run.folder, "wandb").write_text(record.model_dump_json())
    return record.id


def test_a_resumed_stage_goes_on_in_its_run_and_one_that_starts_anew_has_its_own(run):
    first = noted(run)
    assert noted(run) == first
    # What the plan does with a superseded stage: same folder, same fingerprint, nothing in it.
    run.folder.rename(run.folder.with_name("superseded"))
    run.folder.mkdir()
    assert noted(run) != first


def test_whose_a_run_is_stands_among_its_tags(run):
    theirs = run.model_copy(update={"work_group": "speech", "user_name": "Größe"})
    assert tracker_record(theirs, "wandb", "llama3 demo").tags == ["stdlib", "sft", "llama3 demo", "speech", "Größe"]
    assert tracker_record(run, "wandb").tags == ["stdlib", "sft"]


def test_runs_are_grouped_by_run_and_told_apart_by_stage(run, monkeypatch):
    monkeypatch.setenv("WANDB_TAGS", "night, ,cluster," + "x" * 65)
    # An id for all stages would make one run of them.
    monkeypatch.setenv("WANDB_RUN_ID", "one-for-all")
    record = tracker_record(run, "wandb", "qwen2 0.5B")
    assert (record.group, record.job_type, record.name) == ("stdlib/monday", "sft", "monday-sft")
    assert record.project == "stdlib"
    assert record.tags == ["stdlib", "sft", "qwen2 0.5B", "night", "cluster"]
    assert record.id != "one-for-all"
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert (tracker_record(run, "wandb").project, tracker_record(run, "wandb").entity) == ("ours", "team")


@pytest.mark.parametrize(
    ("said", "mode"),
    [(None, "offline"), ("", "offline"), ("ONLINE", "online"), ("dryrun", "offline"), ("disabled", "disabled")],
)
def test_offline_unless_told_otherwise(monkeypatch, said, mode):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    assert tracker_mode("wandb") == mode


@pytest.mark.parametrize("content", [None, "", "{", '{"unknown": 1}'])
def test_a_record_that_is_not_there_or_torn_is_none(run, content):
    if content is not None:
        record_file(run.folder, "wandb").write_text(content)
    assert read_tracker_record(run.folder, "wandb") is None
    assert noted(run)
