import logging
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import REPO
from local_hub import LocalHub
from pushing import Push

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Difference, Entry, bytes_entry
from titanflow.publish.hub.push import preview
from titanflow.publish.hub.repository import Release, Repository

Bundle = dict[str, Entry]
WRITES = "^(POST|PUT|DELETE)"


def release(bundle: Bundle, branch: str = "main", private: bool = True, tag: str = "t", **more: Any) -> Release:
    return Release(bundle, branch, "a run", private, Path("downloaded"), tag, **more)


def test_a_repository_that_is_not_there_yet(
    hub: LocalHub, repository: Repository, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[str | None] = []
    found = preview(release(bundle, ask=asked.append), repository)
    assert found == Difference(tuple(bundle), ())
    assert f"would create the private repository {REPO}" in caplog.messages
    assert "would write model.safetensors, 0.001 MB" in caplog.messages
    assert asked == [None]
    assert hub.repos == {}
    assert hub.requests(WRITES) == 0


def test_what_differs_from_the_branch(
    hub: LocalHub, publish: Push, repository: Repository, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pushed = publish(**{"model-00002-of-00002__safetensors": b"an older run's shard"})
    before, asked = len(hub.log), []
    changed = bundle | {"config.json": bytes_entry(b"{}")}
    for branch in ("main", "not-made-yet"):
        found = preview(release(changed, branch=branch, ask=asked.append), repository)
        assert found == Difference(("config.json",), ("model-00002-of-00002.safetensors",))
    assert "would delete model-00002-of-00002.safetensors" in caplog.messages
    assert asked == [pushed.commit, pushed.commit]
    assert not [line for line in hub.log[before:] if re.search(WRITES, line)]


def test_what_is_there_already_changes_nothing(publish: Push, repository: Repository, bundle: Bundle) -> None:
    publish()
    assert not preview(release(bundle, tag="run-7"), repository)
    assert not preview(release(bundle, tag=""), repository)


def test_what_a_push_would_refuse(publish: Push, repository: Repository, bundle: Bundle) -> None:
    publish(private=False)
    with pytest.raises(HubError, match="holds something else: config"):
        preview(release(bundle | {"config.json": bytes_entry(b"{}")}, tag="run-7", private=False), repository)
    with pytest.raises(HubError, match="is public and the config says"):
        preview(release(bundle, tag="run-7"), repository)
