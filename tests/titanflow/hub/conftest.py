from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_run import FinishedRun, write_export
from local_hub import LocalHub


@pytest.fixture(scope="session")
def hub_server() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def hub(hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalHub:
    """An empty Hub, and the environment that a publish to it needs."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    hub_server.reset()
    environment = {"HF_ENDPOINT": hub_server.url, "HF_TOKEN": hub_server.token, "HF_HOME": str(tmp_path / "hf_home")}
    for key, value in (environment | {"HF_HUB_DISABLE_XET": "1"}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The client itself retries a few requests, and waits for seconds in between.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    return hub_server


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "run-7" / "sft" / "export")


@pytest.fixture
def finished(export: Path) -> FinishedRun:
    return FinishedRun.write(export.parent.parent)
