"""The days of nights, what is left out, and what is done again (``simulated_nights`` says what is real)."""

import shutil
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import yaml

from flows import night as module
from titanflow.nightly.night import Night
from titanflow.nightly.table import read_nights
from titanflow.planning.plan import make_plan
from titanflow.runs.manifest import Manifest


def test_missed_nights_are_left_out_or_the_newest_alone_is_caught_up(nights):
    """A machine that was off for three nights: its worker finds their runs all at once."""
    nights.publishes = False
    missed = [nights.scheduled(f"2024-06-0{day}T22:30:00+00:00") for day in (1, 2, 3)]
    states = [nights.runs_at(run, "2024-06-04T09:00:00+00:00").state for run in missed[:2]]
    assert [state.name for state in states] == ["Skipped", "Skipped"]
    assert states[0].is_completed()
    assert states[0].message == "2 newer nights are due: the newest is run"
    late = nights.runs_at(missed[2], "2024-06-04T09:00:00+00:00").state
    assert (late.name, late.message) == ("Skipped", "10:30:00 h late; with nightly.catch_up: true it would run")
    assert set(nights.table().values()) == {"skipped"}

    nights.write(catch_up=True)
    newest = nights.scheduled("2024-06-03T22:30:00+00:00")
    assert nights.runs_at(newest, "2024-06-04T09:00:00+00:00").state.name == "Completed"
    assert nights.table() == {"2024-06-04": "published", "2024-06-03": "skipped", "2024-06-02": "skipped"}


def test_a_night_that_waited_for_another_experiment_s_is_not_late(nights):
    """Both were due at half past ten; the worker takes one run at a time."""
    nights.publishes = False
    due = "2024-06-01T22:30:00+00:00"
    other = nights.deployed("nightly-other", parameters={**nights.parameters, "run": "other"})
    # What the server keeps of a run are its own times, not those of the nights' clock: it ends now.
    ended = nights.runs_at(nights.scheduled(due, other), due).end_time
    waited = nights.runs_at(nights.scheduled(due), f"{ended + timedelta(minutes=59)}").state
    assert (waited.name, nights.table()) == ("Completed", {"2024-06-02": "published"})
    late = nights.runs_at(nights.scheduled("2024-06-02T22:30:00+00:00"), f"{ended + timedelta(minutes=61)}").state
    assert (late.name, late.message) == ("Skipped", "1:01:00 h late; with nightly.catch_up: true it would run")


def test_a_night_that_was_run_by_hand_before_says_when(nights):
    nights.publishes = False
    by_hand = nights.runs_at(nights.scheduled("2024-06-01T22:15:00+00:00"), "2024-06-01T22:15:00+00:00")
    record = (nights.runs / "2024-06-02/night.json").read_text()
    assert by_hand.state.message == "published as /published: no gate was asked for (publish.gate)"
    scheduled = nights.runs_at(nights.scheduled("2024-06-01T22:30:00+00:00"), "2024-06-01T22:30:05+00:00", None)
    assert (scheduled.state.name, scheduled.state.is_completed()) == ("Done before", True)
    finished = Manifest.open(nights.runs / "2024-06-02").stages["publish"].finished
    when = datetime.fromisoformat(finished).astimezone(ZoneInfo("Europe/Berlin"))
    assert scheduled.state.message == (f"done at {when:%Y-%m-%d %H:%M %Z}, by an earlier run: {by_hand.state.message}")
    assert (nights.runs / "2024-06-02/night.json").read_text() == record


def test_a_night_that_titanflow_run_has_done_ended_then(nights):
    nights.publishes = False
    due = "2024-06-01T22:30:00+00:00"
    nights.runs_at(nights.scheduled(due), due)
    folder = nights.runs / "2024-06-02"
    # The command writes no end.
    Night.read(folder).model_copy(update={"ended": "", "state": ""}).write(folder)
    assert nights.runs_at(nights.scheduled(due), due).state.name == "Done before"
    ended = Night.read(folder)
    assert (ended.state, ended.ended) == ("published", Manifest.open(folder).stages["publish"].finished)


def test_a_workspace_that_can_not_be_written_is_named(nights):
    nights.runs.parent.write_text("a file")
    run = nights.runs_at(nights.scheduled("2024-06-01T22:30:00+00:00"), "2024-06-01T22:31:00+00:00")
    assert run.state.name == "Failed"
    assert run.state.message.startswith(f"workspace: {nights.runs} can't be made: ")


def test_never_two_at_once(nights):
    nights.runs.mkdir(parents=True)
    with module.held(nights.runs, module.NIGHTS_LOCK):
        run = nights.runs_at(nights.scheduled("2024-06-01T22:30:00+00:00"), "2024-06-01T22:31:00+00:00")
    assert (run.state.name, run.state.message) == ("Skipped", "another night is still running")


def test_a_night_goes_on_where_the_last_that_trained_ended_also_when_it_starts_again(nights):
    nights.write(start="continue", keep=0)
    nights.publishes = False
    first, second, third = (f"2024-06-0{day}T22:30:00+00:00" for day in (1, 2, 3))
    nights.runs_at(nights.scheduled(first), first, 60)
    nights.runs_at(nights.scheduled(second), second, None)
    failed = Night.read(nights.runs / "2024-06-03")
    assert (failed.state, failed.parent.run, failed.parent.rows) == ("failed", "2024-06-02", 48)

    # What a retry finds hours later: the same night, which isn't left out, and the same parent.
    nights.runs_at(nights.scheduled(second), "2024-06-03T06:00:00+00:00", 95)
    again = Night.read(nights.runs / "2024-06-03")
    assert (again.state, again.parent) == ("published", failed.parent)
    assert list(nights.table()) == ["2024-06-03"]

    nights.runs_at(nights.scheduled(third), third, 50)
    last = Night.read(nights.runs / "2024-06-04")
    assert (last.state, last.parent.run, last.parent.rows) == ("held back", "2024-06-03", 96)
    run = yaml.safe_load((nights.runs / "2024-06-04/pretrain/run.yaml").read_text())
    assert run["config"]["checkpoint"]["initial_load_path"] == str(last.parent.checkpoint)
    assert run["config"]["training"]["skip_rows"] == 96
    assert run["origins"]["training.skip_rows"] == "night 2024-06-04, which continues 2024-06-03"
    # It needs no parent any more, and what was published last stays.
    assert list(nights.table()) == ["2024-06-04", "2024-06-03"]
    shutil.rmtree(nights.runs / "2024-06-03")
    plan = make_plan("nights", nights.configs, "2024-06-04")
    states = {stage.stage: stage.state for stage in plan.stages}
    assert {states[stage] for stage in ("pretrain", "sft", "evaluate")} == {"CACHED"}


def test_a_night_whose_config_is_wrong_is_in_the_table(nights):
    (nights.configs.parent / "chats.jsonl").unlink()
    run = nights.runs_at(nights.scheduled("2024-06-01T22:30:00+00:00"), "2024-06-01T22:31:00+00:00")
    assert run.state.name == "Failed"
    (row,) = read_nights(nights.runs)
    assert (row.state, "chats.jsonl" in row.cause) == ("failed", True)
