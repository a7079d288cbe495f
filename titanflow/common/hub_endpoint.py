"""Which Hub a push talks to, and with whose token; both come from the environment, never from a config."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, HubError, Problem

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "https://huggingface.co"
PATIENCE = 300.0
"""Seconds without a byte after which a request is given up; a commit of many large files is answered sooner."""


def hub_endpoint() -> str:
    """The URL of the Hub: ``HF_ENDPOINT``, or huggingface.co.

    Raises:
        ConfigError: no http(s) URL, or one with a name or password, which would end up in error messages.
    """
    url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(Problem(f"{redact(url)!r} is no URL of a Hub", "HF_ENDPOINT", expected="https://host"))
    if "@" in parts.netloc:
        hint = "take the credentials out of the URL and set HF_TOKEN"
        raise ConfigError(Problem("the URL holds a name or password", "HF_ENDPOINT", "", "https://host", hint))
    return url


def use_plain_transfer(endpoint: str) -> None:
    """Turns Xet off for a Hub that isn't huggingface.co, unless ``HF_HUB_DISABLE_XET`` is set.

    With ``hf_xet`` installed the client (huggingface_hub 1.31 to 2.4) offers no other transfer, so a server without Xet
    can't be pushed to. It reads the variable once, on import; if it is imported already, its constant is set too.
    """
    if endpoint == HUB or "HF_HUB_DISABLE_XET" in os.environ:
        return
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_DISABLE_XET = True  # type: ignore[attr-defined]


def hub_token() -> str:
    """The token that the Hub's own client finds: ``HF_TOKEN``, or what ``hf auth login`` stored.

    Raises:
        HubError: there is none, or it can't be one.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise HubError(
            "There is no token for the Hub: set HF_TOKEN to a token with write access, or run `hf auth login`."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise HubError(
            "The token for the Hub holds a character that no token has: copy it into HF_TOKEN again, or run "
            "`hf auth login`."
        )
    return token


def hub_client(endpoint: str, token: str) -> HfApi:
    """The Hub's client, for a process that writes a log.

    By default the client (huggingface_hub 1.31 to 2.4) waits for ever for most answers, draws progress bars that fill a
    log with control characters, and logs each request's URL, which may be a signed one.
    """
    from huggingface_hub import HfApi, get_session, set_client_factory
    from huggingface_hub.utils import disable_progress_bars

    session = get_session()
    # httpx's or httpx2's, depending on the client's version.
    make, hooks = type(session), session.event_hooks
    if give_up not in hooks["request"]:
        hooks = {**hooks, "request": [*hooks["request"], give_up]}
        set_client_factory(lambda: make(event_hooks=hooks, follow_redirects=True, timeout=PATIENCE))
    disable_progress_bars()
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return HfApi(endpoint=endpoint, token=token, library_name="titanflow")


def give_up(request: Any) -> None:
    """Sets a time limit for each wait of a request: the client's methods explicitly ask for none."""
    asked = request.extensions.get("timeout") or {}
    waits = {phase: asked.get(phase) or PATIENCE for phase in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": waits}
