import pytest
from small_plan import PUBLISHES, small_plan

from flows import announce as module
from titanflow.runs.results import PublishResult


@pytest.fixture
def told(monkeypatch):
    """The events that were sent."""
    events = []
    monkeypatch.setattr(module, "emit_event", lambda event, **details: events.append((event, details["payload"])))
    return events


@pytest.mark.parametrize(
    ("state", "status", "events"),
    [
        ("RUN", "published", ["titanflow.published"]),
        ("RUN", "held back", ["titanflow.held-back"]),
        ("RUN", "proposed", ["titanflow.proposed"]),
        ("RUN", "dry run", []),
        # What was published by an earlier run of the same night is no news.
        ("CACHED", "published", []),
    ],
)
def test_what_became_of_a_model_is_told_once(tmp_path, told, state, status, events):
    plan = small_plan(tmp_path, publish=PUBLISHES)
    plan.stages[0].state = state
    module.announce(plan, [PublishResult(target="folder", location="/models/best", status=status)])
    assert [event for event, _ in told] == events
    assert all(payload["link"] == "/models/best" for _, payload in told)
    assert all(payload["message"] == "no gate was asked for (publish.gate)" for _, payload in told)
