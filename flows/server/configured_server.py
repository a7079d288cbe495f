"""A server that somebody else started (``PREFECT_API_URL``), and the proxies before it: refused early if of no use."""

from __future__ import annotations

import os
import urllib.request
from importlib.util import find_spec
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server.server import healthy
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem

START = "start that server, or unset PREFECT_API_URL to have one started"
UNAUTHORIZED = 401


def check_server(url: str, hint: str = START) -> None:
    """Checks that a server answers this client.

    Raises:
        ConfigError: nothing answers, or it wants another password or another version of Prefect.
    """
    if not healthy(url):
        raise ConfigError(Problem(f"nothing answers at {redact(url)}{_by_proxy(url)}", "PREFECT_API_URL", hint=hint))
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            client.raise_for_api_version_mismatch()
        except PrefectHTTPStatusError as error:
            if error.response.status_code != UNAUTHORIZED:
                raise ConfigError(Problem(f"{url} answers {error}", "PREFECT_API_URL", hint=hint)) from error
            found, expected = f"{url} doesn't let this client in", "the server's PREFECT_SERVER_API_AUTH_STRING"
            say = "set it here, too: export PREFECT_API_AUTH_STRING=<user>:<password>"
            raise ConfigError(Problem(found, "PREFECT_API_AUTH_STRING", expected=expected, hint=say)) from error
        except RuntimeError as error:
            raise ConfigError(Problem(f"{url}: {error}", "PREFECT_API_URL", hint=hint)) from error


def check_proxies() -> None:
    """Checks that this client can be made, which speaks to each proxy that there is before it asks any host.

    Raises:
        ConfigError: one is a SOCKS proxy, for which a package is missing.
    """
    if os.environ.get("NO_PROXY") == "*":
        return
    proxies = urllib.request.getproxies()
    for name in ("http", "https", "all"):
        proxy = proxies.get(name, "")
        if proxy.startswith("socks") and find_spec("socksio") is None:
            expected = "an http:// proxy, or the package for SOCKS: pip install 'httpx[socks]'"
            raise ConfigError(Problem(f"found {redact(proxy)}", f"{name}_proxy", expected=expected))


def _by_proxy(url: str) -> str:
    """Which proxy is asked for a server, and how to do without it; empty if there is none between."""
    try:
        address = urlsplit(url)
        proxy = urllib.request.getproxies().get(address.scheme)
        if not proxy or not address.hostname or urllib.request.proxy_bypass(address.netloc):
            return ""
    except ValueError:
        return ""
    return f" through the proxy {redact(proxy)}; NO_PROXY={address.hostname} asks it directly"
