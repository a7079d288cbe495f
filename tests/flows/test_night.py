"""Nights against a real Prefect server: their days, what is left out, and who is told.

Simulated are the clock, the server's scheduler (each night is a run that is created for its time), and the programs of
the stages before publish, which write what trainings and an evaluation would have. Real are the flow, the plan, the
publish stage with its gate, the events, the automations and their webhook.
"""

import itertools
import json
import shutil
import threading
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from zoneinfo import ZoneInfo

import pytest
import yaml
from finished_run import evaluate_result, train_result, write_export, write_samples
from finished_stage import write_checkpoint
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.schedules import CronSchedule
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from tiny_experiment import write_tiny_experiment
from watching import wait_for

from deployments.notifications import KINDS, automation_name, ensure_notifications
from flows import night as module
from flows import pretrain_sft as flow_module
from flows.pretrain_sft import pretrain_sft
from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.nightly.night import Night
from titanflow.nightly.table import read_nights
from titanflow.planning.plan import make_plan
from titanflow.runs.errors import StageError, write_error
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import PrepareResult, PublishResult, TrackerRecord, write_result


def write_stage(folder, name, run, right):
    """What a stage leaves in ``folder`` that is to lie in ``run / name``; the evaluation finds ``right`` percent.

    Only where a test isn't about it, of publishing: with a gate at 50 percent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name == "prepare":
        write_result(folder, PrepareResult())
    elif right is None:
        write_error(folder, StageError(type="FloatingPointError", message="the loss is nan at step 3"))
    elif name == "publish":
        status = "published" if right > 50 else "held back"
        write_result(folder, PublishResult(target="folder", location="/published", status=status))
    elif name == "evaluate":
        digests = folder_digests(folder.parent / "sft" / "export")
        scores = {"tiny_colour": {"acc": right / 100, "acc_stderr": 0.04}}
        result = evaluate_result(
            scores={"base": scores, "sft": scores},
            samples={"tiny_colour": 100},
            n_shot={},
            task_versions={"tiny_colour": "1.0"},
            higher_is_better={"tiny_colour": {"acc": True}},
            folders=dict.fromkeys(("base", "sft"), run / "sft" / "export"),
            digests=dict.fromkeys(("base", "sft"), digests),
        )
        write_result(folder, result)
        write_samples(folder, result)
    else:
        export = write_export(folder / "export")
        (export / "model.safetensors").write_bytes(run.name.encode() * 9)
        write_checkpoint(folder / "checkpoint" / "step-12")
        digests = folder_digests(export)
        checkpoint = run / name / "checkpoint" / "step-12"
        there = {"export": run / name / "export", "export_digests": digests, "checkpoint": checkpoint, "step": 12}
        write_result(folder, train_result(name, **there))
        record = TrackerRecord(id="1", mode="online", url=f"https://wandb.ai/{run.name}")
        (folder / "wandb.json").write_text(record.model_dump_json())


NAME = "nightly-nights"
FIRST = "nothing was published here before, so there is nothing to compare it with"


class Receiver:
    """What a team's chat would get."""

    def __init__(self):
        got = self.got = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((self.headers["Content-Type"], json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/chat?key=hidden"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


class Nights:
    """An experiment's nights: ``clock`` is the time that it is."""

    def __init__(self, root, monkeypatch):
        self.configs = write_tiny_experiment(root)
        self.runs = root / "runs" / "nights"
        self.published = root / "published"
        self.right: int | None = None
        self.clock = None
        self.publishes = True
        count = itertools.count()
        self.write()

        def planned(experiment, configs, run, settings):
            plan, made = make_plan(experiment, configs, run, settings), root
            for stage in plan.stages:
                # The data that it would find again are simulated, too.
                if stage.stage == "prepare" and (stage.run.folder / "result.json").exists():
                    stage.state = "CACHED"
                made = root / f"made-{next(count)}" if stage.stage == "prepare" else made
                if stage.stage != "publish" or not self.publishes:
                    write_stage(made / stage.stage, stage.stage, plan.folder, self.right)
                    fails = self.right is None and stage.stage != "prepare"
                    copy = 'cp -r "$0"/. "$1"' + ("; exit 1" if fails else "")
                    stage.command = ["sh", "-c", copy, str(made / stage.stage), str(stage.run.folder)]
            return plan

        monkeypatch.setattr(flow_module, "make_plan", planned)
        monkeypatch.setattr(module, "clock", lambda: self.clock)
        self.parameters = {"run": "{date}", "night": True, "experiment": "nights", "configs": str(self.configs)}
        self.deployment = self.deployed(NAME, self.parameters)

    def deployed(self, name, parameters):
        schedule = CronSchedule(cron="30 0 * * *", timezone="Europe/Berlin")
        with get_client(sync_client=True) as client:
            return client.create_deployment(
                flow_id=client.create_flow(pretrain_sft),
                name=name,
                schedules=[DeploymentScheduleCreate(schedule=schedule, active=False)],
                parameters=parameters,
            )

    def write(self, **nightly):
        gate = {"better_than_last": True, "tasks": ["tiny_colour"], "resamples": 200}
        publish = {"overrides": {"folder": str(self.published), "gate": gate}}
        experiment = {
            "extends": ["tiny.yaml"],
            "exp_name": "nights",
            "nightly": nightly,
            "notify": {"webhook_block": "nights-receiver"},
            "modules": {"publish": publish},
        }
        (self.configs / "experiments" / "nights.yaml").write_text(yaml.safe_dump(experiment))

    def scheduled(self, when, deployment=None):
        with get_client(sync_client=True) as client:
            state = Scheduled(scheduled_time=datetime.fromisoformat(when))
            return client.create_flow_run_from_deployment(deployment or self.deployment, state=state)

    def runs_at(self, flow_run, when, right=90):
        """Runs a scheduled night as its worker would, at that time; without a figure its training fails."""
        self.clock = datetime.fromisoformat(when)
        self.right = right
        with get_client(sync_client=True) as client:
            now = client.read_flow_run(flow_run.id)
            run_flow(pretrain_sft, flow_run=now, parameters=now.parameters, return_type="state")
            return client.read_flow_run(flow_run.id)

    def table(self):
        return {row.date: row.state for row in read_nights(self.runs)}


@pytest.fixture
def nights(api, tmp_path, monkeypatch):
    return Nights(tmp_path, monkeypatch)


def artifact(flow_run, key):
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        return next(one.data for one in client.read_artifacts(artifact_filter=of_run) if one.key == key)


def test_three_nights_publish_hold_back_and_fail_and_the_morning_s_table_shows_it(nights, receiver):
    """Half past midnight in Berlin, over the night in which summer time begins."""
    headers = {"Content-Type": "application/json"}
    Webhook(url=receiver.url, headers=headers).save("nights-receiver", overwrite=True)
    ensure_notifications(load_experiment("nights", nights.configs), NAME)

    first = nights.runs_at(nights.scheduled("2024-03-29T23:30:00+00:00"), "2024-03-29T23:30:05+00:00", 60)
    assert (first.state.name, first.name) == ("Completed", "nights/2024-03-30")
    published = json.loads((nights.published / "titanflow.json").read_text())
    assert published["run"] == "2024-03-30"
    assert first.state.message == f"published as {nights.published}: {FIRST}"

    second = nights.runs_at(nights.scheduled("2024-03-30T23:30:00+00:00"), "2024-03-30T23:30:05+00:00", 55)
    assert (second.state.name, second.name) == ("Held back", "nights/2024-03-31")
    assert json.loads((nights.published / "titanflow.json").read_text()) == published

    # It was to begin on the 1st, and does on the 2nd: after a run that took its time.
    nights.write(catch_up=True)
    third = nights.runs_at(nights.scheduled("2024-03-31T22:30:00+00:00"), "2024-04-01T23:30:00+00:00", None)
    assert (third.state.name, third.name) == ("Failed", "nights/2024-04-01")

    assert nights.table() == {"2024-04-01": "failed", "2024-03-31": "held back", "2024-03-30": "published"}
    rows = {row.date: row for row in read_nights(nights.runs)}
    assert rows["2024-03-30"].scores == {"tiny_colour/acc": 0.6}
    assert rows["2024-03-30"].link == str(nights.published)
    assert rows["2024-03-30"].cells()[4] == FIRST
    assert rows["2024-03-31"].comparisons[0].difference == pytest.approx(-0.05)
    assert "not 95 % sure to be better than nights/2024-03-30" in rows["2024-03-31"].cause
    assert "the loss is nan at step 3" in rows["2024-04-01"].cause
    shown = artifact(third, "nights").splitlines()
    assert [line.split(" | ")[:2] for line in shown if line.startswith("| 2024")] == [
        ["| 2024-04-01", "failed"],
        ["| 2024-03-31", "held back"],
        ["| 2024-03-30", "published"],
    ]
    assert "tiny_colour -0.05 [" in shown[5]

    wait_for(lambda: len(receiver.got) >= 3, "three calls of the webhook")
    calls = {call["run"]: call for _, call in receiver.got}
    assert {kind for kind, _ in receiver.got} == {"application/json"}
    assert len(receiver.got) == 3
    assert {run: call["state"] for run, call in calls.items()} == {
        "nights/2024-03-30": "published",
        "nights/2024-03-31": "held back",
        "nights/2024-04-01": "Failed",
    }
    assert {call["experiment"] for call in calls.values()} == {"nights"}
    assert calls["nights/2024-03-30"]["link"] == str(nights.published)
    assert calls["nights/2024-03-30"]["message"] == FIRST
    assert calls["nights/2024-03-30"]["wandb"] == "https://wandb.ai/2024-03-30"
    keys = ["experiment", "run", "flow_run", "scheduled", "state", "message", "link", "wandb", "prefect"]
    assert [list(call) for call in calls.values()] == [keys] * 3
    assert "the loss is nan at step 3" in calls["nights/2024-04-01"]["message"]
    assert calls["nights/2024-04-01"]["flow_run"] == str(third.id)
    assert "hidden" not in json.dumps(calls)


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


def test_automations_are_made_once_and_go_with_what_asked_for_them(nights):
    def named():
        with get_client(sync_client=True) as client:
            kinds = {kind: client.read_automations_by_name(automation_name(NAME, kind)) for kind in KINDS}
        return {kind: len(found) for kind, found in kinds.items() if found}

    Webhook(url="http://127.0.0.1:9/").save("nights-receiver", overwrite=True)
    experiment = load_experiment("nights", nights.configs)
    for _ in range(2):
        assert len(ensure_notifications(experiment, NAME)) == 4
        assert named() == dict.fromkeys(KINDS, 1)
    experiment.spec.notify.on = ["failed"]
    ensure_notifications(experiment, NAME)
    assert named() == {"failed": 1}
    experiment.spec.notify.webhook_block = None
    ensure_notifications(experiment, NAME)
    assert named() == {}


def test_a_webhook_block_that_is_not_there_is_named(nights):
    experiment = load_experiment("nights", nights.configs)
    experiment.spec.notify.webhook_block = "tema-chat"
    with pytest.raises(ConfigError, match=r"nights.yaml:\d+: notify.webhook_block: the server has no .* 'tema-chat'"):
        ensure_notifications(experiment, NAME)
