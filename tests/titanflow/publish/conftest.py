from __future__ import annotations

import difflib
import functools
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from finished_run import REPO, FinishedRun, write_export
from local_hub import LocalHub
from pushing import CARD, Push

from titanflow.common.hub_endpoint import give_up
from titanflow.evals import asked_tasks
from titanflow.publish.bundle import Entry, bytes_entry, from_export
from titanflow.publish.card import card
from titanflow.publish.hub.push import Pushed, push
from titanflow.publish.hub.repository import Ask, Release, Repository, ask_nothing
from titanflow.publish.hub.retry import Caller, Retry


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """What each publish of a process makes anew and alike: the template's code, and what names resemble in lm-eval's
    library of 14,000.
    """
    near = functools.cache(lambda name, known, n: difflib.get_close_matches(name, known, n=n))
    seen = SimpleNamespace(get_close_matches=lambda name, known, n: near(name, tuple(known), n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asked_tasks, "difflib", seen)
        patch.setattr(card, "FileSystemLoader", functools.cache(jinja2.FileSystemLoader))
        patch.setattr(card, "Environment", functools.cache(jinja2.Environment))
        yield


@functools.cache
def certificates() -> ssl.SSLContext:
    """What a client reads as it is made, needlessly: the Hub of the tests is asked without encryption."""
    return ssl.create_default_context()


@pytest.fixture(scope="session")
def hub_server() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def hub(hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """An empty Hub, and the environment that a publish to it needs."""
    from huggingface_hub import constants, file_download, get_session, set_client_factory
    from huggingface_hub.utils import _http

    hub_server.reset()
    environment = {"HF_ENDPOINT": hub_server.url, "HF_TOKEN": hub_server.token, "HF_HOME": str(tmp_path / "hf_home")}
    for key, value in (environment | {"HF_HUB_DISABLE_XET": "1"}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The client itself retries a few requests, and waits for seconds in between.
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    session = get_session()
    make, hooks = type(session), session.event_hooks
    # A test of another folder may have had this project's client, whose patience would stay.
    hooks = {**hooks, "request": [hook for hook in hooks["request"] if hook is not give_up]}
    settings = {"event_hooks": hooks, "follow_redirects": True, "timeout": None, "verify": certificates()}
    clients = functools.partial(make, **settings)
    set_client_factory(clients)
    yield hub_server
    set_client_factory(clients)


@pytest.fixture
def cache(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client, which has read the environment already."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "run-7" / "sft" / "export")


@pytest.fixture
def finished(export: Path) -> FinishedRun:
    return FinishedRun.write(export.parent.parent)


@pytest.fixture
def waits() -> list[float]:
    """The seconds that a push would have waited."""
    return []


@pytest.fixture
def bundle(export: Path) -> dict[str, Entry]:
    return from_export(export) | {"README.md": bytes_entry(CARD), "titanflow.json": bytes_entry(b"{}\n")}


@pytest.fixture
def repository(hub: LocalHub, waits: list[float]) -> Repository:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=hub.token)
    return Repository(api, REPO, Caller(REPO, hub.token, Retry(attempts=4, sleep=waits.append)))


@pytest.fixture
def publish(repository: Repository, bundle: dict[str, Entry], tmp_path: Path) -> Push:
    def publish(
        tag: str = "run-7", branch: str = "main", private: bool = True, ask: Ask = ask_nothing, **files: bytes
    ) -> Pushed:
        changed = {name.replace("__", "."): bytes_entry(data) for name, data in files.items()}
        release = Release(bundle | changed, branch, "a run", private, tmp_path / "downloaded", tag, ask)
        return push(release, repository)

    return publish
