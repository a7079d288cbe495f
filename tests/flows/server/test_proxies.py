"""Proxies with which no client can be made are refused by name; entries of ``NO_PROXY`` that are usual are not."""

import os

import httpx
import pytest

import titanflow
from flows.server import proxies
from flows.server.prefect_settings import check_prefect_settings
from flows.server.proxies import check_proxies
from titanflow.common.errors import ConfigError


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_socks_proxy_without_its_package_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda package: None)
    monkeypatch.setenv(name, "http://proxy")
    check_proxies()
    monkeypatch.setenv(name, "socks5://me:secret@proxy")
    said = rf"^{name.lower()}: found 'socks5://\[redacted\]proxy'\n.*httpx\[socks\]"
    with pytest.raises(ConfigError, match=said):
        check_prefect_settings()
    monkeypatch.setenv("NO_PROXY", "*")
    check_proxies()


@pytest.mark.parametrize("proxy", ["ftp://me:secret@proxy:1", " http://me:secret@proxy:3128"])
def test_what_is_no_proxy_is_refused_by_name(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ValueError, match="proxy"):
        httpx.Client()
    said = r"^http_proxy: found '.*://\[redacted\]proxy:\d+'\n    expected: an http:// proxy, as"
    with pytest.raises(ConfigError, match=said):
        check_proxies()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("[::1]", "::1,127.0.0.1,localhost"),
        ("::1/128,fe80::/10,[fd00::7],10.0.0.0/8", "::1,fd00::7,10.0.0.0/8,127.0.0.1,localhost"),
        ("host:8080,http://head:4200", "host:8080,http://head:4200,127.0.0.1,localhost,::1"),
    ],
)
def test_addresses_of_ipv6_may_be_written_as_usual(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", given)
    titanflow.ask_loopback_directly()
    assert os.environ["NO_PROXY"] == kept
    check_proxies()
    httpx.Client().close()


def test_an_entry_that_no_client_can_be_made_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "[::1]:80")
    with pytest.raises(ConfigError, match=r"^NO_PROXY: Invalid port: .*\n    expected: names and addresses"):
        check_proxies()
