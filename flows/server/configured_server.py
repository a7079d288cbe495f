"""A server that somebody else started (``PREFECT_API_URL``): refused early if it is of no use."""

from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server.server import UNAUTHORIZED, healthy
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem

START = "start that server, or unset PREFECT_API_URL to have one started"


def configured_url() -> str:
    """The address that ``PREFECT_API_URL`` names, without a slash at its end; empty if it names none."""
    return (PREFECT_API_URL.value() or "").rstrip("/")


def check_server(url: str, hint: str = START) -> None:
    """Checks that a server answers this client.

    Raises:
        ConfigError: nothing answers, or it wants another password or another version of Prefect.
    """
    shown = redact(url)
    expected = "" if "/api" in url else f"the address of an API, as {shown}/api"
    if not healthy(url):
        found = f"nothing answers at {shown}{_by_proxy(url)}"
        raise ConfigError(Problem(found, "PREFECT_API_URL", expected=expected, hint=hint))
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            client.raise_for_api_version_mismatch()
        except PrefectHTTPStatusError as error:
            if error.response.status_code != UNAUTHORIZED:
                raise ConfigError(Problem(f"{shown} answers {error}", "PREFECT_API_URL", hint=hint)) from error
            found, expected = f"{shown} doesn't let this client in", "the server's PREFECT_SERVER_API_AUTH_STRING"
            say = "set it here, too: export PREFECT_API_AUTH_STRING=<user>:<password>"
            raise ConfigError(Problem(found, "PREFECT_API_AUTH_STRING", expected=expected, hint=say)) from error
        except RuntimeError as error:
            raise ConfigError(Problem(f"{shown}: {error}", "PREFECT_API_URL", expected=expected, hint=hint)) from error


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
