"""Who is told what of a night, by the server's own automations and webhook."""

import json

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from simulated_nights import FIRST, NAME, artifact
from watching import wait_for

from deployments.notifications import KINDS, automation_name, ensure_notifications
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.nightly.table import read_nights


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


def test_a_model_that_is_proposed_is_told_with_its_pull_request(nights, receiver):
    Webhook(url=receiver.url).save("nights-receiver", overwrite=True)
    ensure_notifications(load_experiment("nights", nights.configs), NAME)
    nights.publishes, nights.pull_request = False, "https://hub.example/me/best/discussions/1"
    due = "2024-06-01T22:30:00+00:00"
    proposed = nights.runs_at(nights.scheduled(due), due)
    said = f"proposed as {nights.pull_request}: no gate was asked for (publish.gate)"
    assert (proposed.state.name, proposed.state.message) == ("Completed", said)
    assert nights.table() == {"2024-06-02": "proposed"}
    wait_for(lambda: receiver.got, "a call of the webhook")
    ((_, call),) = receiver.got
    told = {"run": "nights/2024-06-02", "state": "proposed", "link": nights.pull_request}
    assert call.items() >= told.items()


def test_automations_are_made_once_and_go_with_what_asked_for_them(nights):
    def named():
        with get_client(sync_client=True) as client:
            kinds = {kind: client.read_automations_by_name(automation_name(NAME, kind)) for kind in KINDS}
        return {kind: len(found) for kind, found in kinds.items() if found}

    Webhook(url="http://127.0.0.1:9/").save("nights-receiver", overwrite=True)
    experiment = load_experiment("nights", nights.configs)
    for _ in range(2):
        assert len(ensure_notifications(experiment, NAME)) == len(KINDS)
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
