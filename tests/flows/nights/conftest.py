"""Nights, and who is told of them."""

import pytest
from receiver import Receiver
from simulated_nights import Nights


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def nights(api, tmp_path, monkeypatch):
    return Nights(tmp_path, monkeypatch)
