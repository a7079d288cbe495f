import logging
import re

import pytest
from finished_run import REPO
from local_hub import LocalHub
from pushing import Push, local, sent

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Entry, bytes_entry
from titanflow.publish.hub import repository


@pytest.fixture
def large(bundle: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Two shards that count as large."""
    monkeypatch.setattr(repository, "LARGE", 1000)
    bundle.pop("model.safetensors")
    shards = {f"model-0000{number}-of-00002.safetensors": bytes([number]) * 2500 for number in (1, 2)}
    bundle.update({name: bytes_entry(data) for name, data in shards.items()})
    return shards


def test_large_files_go_first_each_with_a_line(
    hub: LocalHub, publish: Push, large: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish()
    assert {name: data for name, data in sent(hub).items() if name in large} == large
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == repository.log.name and "upload" in record.msg
    ]
    assert lines[0] == "uploading model-00001-of-00002.safetensors, 0.0 MB (1 of 2)"
    assert re.fullmatch(r"uploaded model-00001-of-00002.safetensors in \d+\.\d s, \d+\.\d MB/s", lines[1])
    assert len(lines) == 4
    assert hub.requests("PUT /lfs/") == 2


def test_a_file_that_arrived_before_the_push_was_cut_off_is_not_sent_again(
    hub: LocalHub, publish: Push, large: dict[str, bytes], bundle: dict[str, Entry]
) -> None:
    hub.fail("POST .*/commit/", 503)
    publish()
    assert hub.requests("PUT /lfs/") == 2
    assert sent(hub) == local(bundle)


def test_in_parts(hub: LocalHub, publish: Push, large: dict[str, bytes], bundle: dict[str, Entry]) -> None:
    hub.part_size = 1000
    hub.fail("PUT .*/parts/2", 503)
    hub.drop("POST /lfs/.*/complete")
    publish()
    assert hub.requests("PUT .*/parts/") == 7
    assert sent(hub) == local(bundle)
    assert hub.repos[REPO].at("main").files["model-00001-of-00002.safetensors"].lfs


def test_a_card_that_the_hub_refuses_costs_no_upload(hub: LocalHub, publish: Push, large: dict[str, bytes]) -> None:
    with pytest.raises(HubError, match=r"doesn't take the front matter of README\.md: while parsing"):
        publish(README__md=b"---\nlicense: [\n---\n")
    assert hub.requests("PUT /lfs/") == 0
    assert hub.requests("POST .*/commit/") == 0
