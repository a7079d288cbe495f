"""Two hundred pushes, each of which meets a fault at any of its requests and is then run again."""

import itertools
import random
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, get_session, set_client_factory
from local_hub import Blob, LocalHub, Repo

from titanflow.common.errors import HubError
from titanflow.publish.bundle import Bundle, bytes_entry
from titanflow.publish.hub.push import Pushed, push
from titanflow.publish.hub.repository import Release, Repository
from titanflow.publish.hub.retry import Caller, Retry

pytestmark = pytest.mark.slow

PUSHES = 200
STATUSES = (401, 403, 409, 412, 429, 503)
FAULTS = (*STATUSES, "drop", "slow", "truncate", "crash before", "crash after")
PATIENCE = {"connect": 60.0, "read": 0.05, "write": 60.0, "pool": 60.0}
CARD = b"---\nlicense: mit\n---\n# it\n"


class Crash(BaseException):
    """The pushing process dies."""


class FaultyLine:
    """The client's side of the line: lets the request with a number meet a fault."""

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self.expect(0, "")

    def expect(self, number: int, fault: int | str) -> None:
        self.number, self.fault, self.met = number, fault, False
        self.sent = itertools.count(1)

    def request(self, request: Any) -> None:
        if next(self.sent) != self.number:
            return
        self.met = True
        line = re.escape(f"{request.method} {request.url.raw_path.decode().partition('?')[0]}")
        if self.fault == "crash before":
            raise Crash
        if self.fault == "crash after":
            request.extensions["crash"] = True
        elif isinstance(self.fault, int):
            self.hub.fail(f"^{line}$", self.fault, Retry_After="7")
        else:
            getattr(self.hub, str(self.fault))(f"^{line}$")
            if self.fault == "slow":
                request.extensions["timeout"] = PATIENCE

    def response(self, response: Any) -> None:
        if response.request.extensions.get("crash"):
            raise Crash


@pytest.fixture
def line(hub: LocalHub) -> FaultyLine:
    line, session = FaultyLine(hub), get_session()
    make, hooks = type(session), session.event_hooks
    hooks = {"request": [*hooks["request"], line.request], "response": [*hooks["response"], line.response]}
    set_client_factory(lambda: make(event_hooks=hooks, follow_redirects=True, timeout=60))
    return line


def bundle_of(number: int) -> Bundle:
    weights = random.Random(number).randbytes(300)
    files = {"config.json": b"{}", "model.safetensors": weights, "README.md": CARD, "titanflow.json": b"{}\n"}
    return {name: bytes_entry(data) for name, data in files.items()}


def published_before(hub: LocalHub, name: str) -> Repo:
    repo = hub.repos[name] = Repo(private=True)
    old = {"config.json": Blob(b"{}"), "model.safetensors": Blob(b"old", lfs=True), "old.json": Blob(b"{}")}
    repo.tags["before"] = repo.commit("main", "before", old).oid
    return repo


def attempt(hub: LocalHub, name: str, bundle: Bundle, scratch: Path) -> Pushed:
    retry = Retry(attempts=4, sleep=lambda seconds: None)
    repository = Repository(HfApi(endpoint=hub.url, token=hub.token), name, Caller(name, hub.token, retry))
    return push(Release(bundle, "main", "a run", True, scratch, "run"), repository)


def check_tag(hub: LocalHub, name: str, bundle: Bundle) -> bool:
    """Whether the run is published; where it is, then exactly."""
    repo = hub.repos.get(name)
    if repo is None or "run" not in repo.tags:
        return False
    files = repo.files("run")
    files.pop(".gitattributes", None)
    assert files == {name: entry.source for name, entry in bundle.items()}
    return True


def test_two_hundred_pushes_with_a_fault_each(hub: LocalHub, line: FaultyLine, tmp_path: Path) -> None:
    attempt(hub, "local/clean", bundle_of(-1), tmp_path / "downloaded")
    longest = next(line.sent) - 1
    chance, cut_off = random.Random(5), 0
    for number in range(PUSHES):
        name, bundle = f"local/m{number}", bundle_of(number)
        begun = len(published_before(hub, name).commits) if number % 2 else 1
        at, fault = chance.randint(1, longest), FAULTS[number % len(FAULTS)]
        line.expect(at, fault)
        try:
            attempt(hub, name, bundle, tmp_path / "downloaded")
            assert check_tag(hub, name, bundle)
        except (HubError, Crash):
            cut_off += 1
            check_tag(hub, name, bundle)
        hub.faults.clear()
        line.expect(0, "")
        first = attempt(hub, name, bundle, tmp_path / "downloaded")
        assert check_tag(hub, name, bundle)
        repo = hub.repos[name]
        assert len(repo.commits) == begun + 1, f"{fault} at request {at}"
        assert first.commit == repo.tags["run"] == repo.branches["main"]
        writes = len(hub.log)
        assert attempt(hub, name, bundle, tmp_path / "downloaded") == Pushed(first.commit, "run", new=False)
        assert not [line for line in hub.log[writes:] if line.startswith(("POST", "PUT"))]
        assert set(repo.tags) == ({"run", "before"} if number % 2 else {"run"})
    assert cut_off > PUSHES / 4, "the faults are met"
