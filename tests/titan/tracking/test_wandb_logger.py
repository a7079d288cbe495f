"""Real trainings' offline recordings, against the documented names and ``metrics.jsonl``."""

import json

from recorded import expected_rows, recorded_rows
from tiny_stages import STEPS

from titan.tracking.metric_names import AXIS
from titan.tracking.wandb_files import history, messages, packed, parsed, recordings
from titan.tracking.wandb_logger import WandbLogger
from titanflow.runs.contract import StageRun
from titanflow.runs.results import read_result
from titanflow.runs.tracker_record import read_tracker_record

EVERY_STEP = {
    "tokens",
    "train/loss",
    "train/perplexity",
    "train/max_loss",
    "train/learning_rate",
    "train/grad_norm",
    "train/tokens_per_second",
    "system/memory_active_gib",
    "system/memory_reserved_gib",
    "system/data_loading_percent",
}
VALIDATED = {"val/loss", "val/perplexity"}


def recording_of(run: StageRun, number: int = 0):
    record = read_tracker_record(run.folder, "wandb")
    assert record is not None
    return recordings(run.folder, record.id)[number]


def said(run: StageRun, kind: str, number: int = 0):
    found = parsed(recording_of(run, number).read_bytes())
    return [getattr(record, kind) for _, record in found if record.WhichOneof("record_type") == kind]


def test_a_training_has_exactly_the_documented_names_and_the_files_values(uninterrupted):
    recorded = recorded_rows(uninterrupted)
    assert [step for step, _ in recorded] == list(range(1, STEPS + 1))
    for step, values in recorded:
        assert set(values) == EVERY_STEP | (VALIDATED if step in (1, 100, 200, STEPS) else set())
    assert dict(recorded) == expected_rows(uninterrupted)


def test_every_section_is_drawn_over_the_tokens(uninterrupted):
    axes = {metric.glob_name: metric.step_metric for metric in said(uninterrupted, "metric") if metric.glob_name}
    assert axes == dict.fromkeys(
        (f"{name}/*" for name in ("train", "val", "router", "system", "rewards", "logps")), AXIS
    )


def test_the_run_says_which_stage_of_which_run_it_is(uninterrupted):
    (begun,) = said(uninterrupted, "run")
    assert (begun.project, begun.run_group, begun.job_type) == ("test", "test/test", "pretrain")
    assert begun.display_name == "test-pretrain"
    assert list(begun.tags) == ["test", "pretrain", "llama3 debugmodel"]
    config = {update.key: json.loads(update.value_json) for update in begun.config.update}
    assert config["config"] == uninterrupted.config
    assert config["fingerprint"] == uninterrupted.fingerprint
    result = read_result(uninterrupted.folder)
    assert result.trackers["wandb"].id == begun.run_id
    assert result.trackers["wandb"].folders == [recording_of(uninterrupted).parent.name]


def test_lineage_stands_in_the_result_and_the_model_in_the_recording(uninterrupted):
    result = read_result(uninterrupted.folder)
    assert [(one.name, one.type) for one in result.trackers["wandb"].used] == [
        ("train", "dataset"),
        ("validation", "dataset"),
    ]
    (model,) = result.trackers["wandb"].logged
    (logged,) = said(uninterrupted, "artifact")
    assert (logged.name, logged.type, set(logged.aliases)) == (
        "test-pretrain",
        "model",
        {"latest", "test", f"step-{STEPS}"},
    )
    assert json.loads(logged.metadata) == {"digest": model.digest}
    assert {entry.path for entry in logged.manifest.contents} == {path.name for path in result.export.glob("*")}
    assert all(entry.ref.startswith(result.export.as_uri()) for entry in logged.manifest.contents)


def test_killed_by_sigkill_and_resumed_each_step_stands_there_once_with_the_files_values(killed):
    recorded = recorded_rows(killed)
    steps = [step for step, _ in recorded]
    assert sorted(steps) == list(range(1, STEPS + 1))
    assert dict(recorded) == expected_rows(killed)
    assert len(read_result(killed.folder).trackers["wandb"].folders) == 2
    before = (killed.folder / "metrics-when-killed.jsonl").read_text().splitlines()
    assert json.loads(before[-1])["step"] > 60, "it was killed past a checkpoint"


def test_steps_after_the_checkpoint_are_taken_out_of_what_was_recorded(uninterrupted, copied):
    run = copied(uninterrupted)
    with recording_of(run).open("ab") as file:
        file.write(b"torn")
    before = {step: row for step, row in expected_rows(run).items() if step <= 50}
    logger = WandbLogger(run)
    logger.begin(before)
    again = {step: {"tokens": step * 256, "train/loss": 1 / step} for step in (51, 52)}
    for step, row in again.items():
        logger.log(row, step)
    logger.close()
    recorded = recorded_rows(run)
    assert [step for step, _ in recorded] == list(range(1, 53))
    assert dict(recorded) == before | again


def test_what_was_synced_is_left_as_it_is_and_not_said_again(uninterrupted, copied):
    run = copied(uninterrupted)
    recording = recording_of(run)
    recording.with_name(f"{recording.name}.synced").touch()
    whole = recording.read_bytes()
    logger = WandbLogger(run)
    logger.begin({step: row for step, row in expected_rows(run).items() if step <= 50})
    logger.log({"train/loss": 1.0}, STEPS)
    logger.log({"train/loss": 2.0}, STEPS + 1)
    logger.close()
    assert recording.read_bytes() == whole
    assert [step for step, _ in history(recording_of(run, 1))] == [STEPS + 1]


def test_a_recording_written_anew_is_wandbs_own_to_the_byte(uninterrupted):
    data = recording_of(uninterrupted).read_bytes()
    assert len(data) > 3 * 32 * 1024, "it has records across blocks"
    assert data[:7] + packed(messages(data)) == data
    assert len(history(recording_of(uninterrupted))) == STEPS
