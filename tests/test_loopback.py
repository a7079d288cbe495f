"""A proxy isn't asked for this machine, whatever the environment says of proxies, and by whatever library."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import httpx
import pytest
from local_server import LocalServer

import titanflow

DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    urllib.request.install_opener(None)
    yield
    # urllib keeps the proxies of the first address that it opened, for all that a process opens later.
    urllib.request.install_opener(None)


async def answers(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "example.org"}, {"NO_PROXY": "example.org", "no_proxy": ""}])
def test_this_machine_is_asked_directly(name: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {name: DEAD, **given}.items():
        monkeypatch.setenv(variable, value)
    titanflow.ask_loopback_directly()
    with LocalServer(answers) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            assert httpx.get(url).text == "ok"
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert answer.read() == b"ok"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"NO_PROXY": "a.example, b.example"}, "a.example,b.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b,a"}, "a,b,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost"}, "localhost,127.0.0.1,::1"),
        # Beside another name a star means nothing to urllib.
        ({"NO_PROXY": "*", "no_proxy": "a"}, "*"),
    ],
)
def test_hosts_that_were_named_stay(given: dict[str, str], kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    for _ in range(2):
        titanflow.ask_loopback_directly()
        assert (os.environ["NO_PROXY"], os.environ["no_proxy"]) == (kept, kept)


def test_without_a_proxy_nothing_is_set() -> None:
    titanflow.ask_loopback_directly()
    assert {"NO_PROXY", "no_proxy"}.isdisjoint(os.environ)


@pytest.mark.parametrize("package", ["titan", "tasks", "flows", "deployments"])
def test_each_program_does_so_before_it_imports_anything_else(package: str) -> None:
    code = f"import {package}, os, sys; print(os.environ['NO_PROXY'], 'prefect' in sys.modules, 'httpx' in sys.modules)"
    environ = {**os.environ, "HTTPS_PROXY": DEAD}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout == "127.0.0.1,localhost,::1 False False\n"
