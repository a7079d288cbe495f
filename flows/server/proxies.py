"""The proxies that the environment names: refused by name where no client can be made with them.

Prefect's client, and the Hub's, is made with all of them before it asks any host, even if it asks this machine alone.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem

EXPECTED = "an http:// proxy"


def check_proxies() -> None:
    """Checks that a client can be made with the proxies that there are.

    Raises:
        ConfigError: names each variable that is of no use.
    """
    if os.environ.get("NO_PROXY") != "*" and (proxies := urllib.request.getproxies()):
        import httpx

        if problems := list(_refused(proxies)):
            raise ConfigError(problems)
        try:
            httpx.Client(verify=False).close()
        except (httpx.InvalidURL, ValueError) as error:
            expected = "names and addresses, as localhost,.example.org,10.0.0.0/8"
            raise ConfigError(Problem(str(error), "NO_PROXY", expected=expected)) from error


def _refused(proxies: dict[str, str]) -> Iterator[Problem]:
    import httpx

    for name in ("http", "https", "all"):
        if not (proxy := proxies.get(name, "")):
            continue
        found, key = f"found {redact(proxy)!r}", f"{name}_proxy"
        try:
            scheme = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}").url.scheme
        except (httpx.InvalidURL, ValueError):
            yield Problem(found, key, expected=f"{EXPECTED}, as http://proxy.example.org:3128")
            continue
        if scheme.startswith("socks") and find_spec("socksio") is None:
            yield Problem(found, key, expected=f"{EXPECTED}, or the package for SOCKS: pip install 'httpx[socks]'")
