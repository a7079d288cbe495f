import logging

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from tasks.ui import artifacts as module
from tasks.ui.artifacts import Artifacts

CREATES = ("create_progress_artifact", "create_table_artifact", "create_image_artifact", "create_link_artifact")
COMPLAINT = "Prefect's artifacts can't be updated (All connection attempts failed); pretrain goes on"


class Api:
    """Stands in for Prefect's functions and client, and notes the calls; raises while ``down``."""

    def __init__(self):
        self.calls = []
        self.down = False

    def note(self, name):
        def call(*args, **kwargs):
            assert PREFECT_CLIENT_MAX_RETRIES.value() == 0
            if self.down:
                raise ConnectionError("All connection attempts failed")
            self.calls.append((name, args, kwargs.get("key")))
            return "id"

        return call

    @property
    def update_artifact(self):
        return self.note("update")


@pytest.fixture
def api(monkeypatch):
    api = Api()
    for name in CREATES:
        monkeypatch.setattr(module, name, api.note(name))
    monkeypatch.setattr(module, "get_client", lambda sync_client: api)
    return api


@pytest.fixture
def shown(api):
    return Artifacts("pretrain", logging.getLogger("test"))


def test_a_ring_is_made_once_and_then_moved(api, shown):
    shown.progress(1.0, "step 1")
    shown.progress(50.0, "step 50")
    created, moved = api.calls
    assert created == ("create_progress_artifact", (1.0,), "pretrain-progress")
    artifact, update = moved[1]
    assert (artifact, update.data, update.description) == ("id", 50.0, "step 50")


def test_each_artifact_is_named_after_its_stage(api, shown):
    shown.table("results", [{"what": "loss", "value": "3"}], "Results")
    shown.table("masks", [], "nothing")
    shown.image("loss", "data:", "Loss")
    shown.link("wandb", "https://w", "W&B run")
    assert [key for _, _, key in api.calls] == ["pretrain-results", "pretrain-loss", "pretrain-wandb"]


def test_an_api_that_is_away_is_told_once_and_rests(api, shown, caplog):
    api.down = True
    shown.progress(1.0, "step 1")
    api.down = False
    shown.progress(2.0, "step 2")
    shown.image("loss", "data:", "Loss")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [COMPLAINT]
    assert api.calls == []


def test_an_api_that_comes_back_is_used_again(api, shown, caplog, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    shown.progress(1.0, "step 1")
    api.down = True
    shown.progress(2.0, "step 2")
    shown.progress(3.0, "step 3")
    api.down = False
    shown.progress(4.0, "step 4")
    assert [name for name, _, _ in api.calls] == ["create_progress_artifact", "update"]
    assert caplog.text.count("can't be updated") == 1
