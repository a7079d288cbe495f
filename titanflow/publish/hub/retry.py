"""Which of a Hub's answers are worth another try, how long to wait for it, and what to tell the user otherwise."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from titanflow.common.credentials import redact
from titanflow.common.errors import HubError, HubUnreachable

log = logging.getLogger(__name__)
Value = TypeVar("Value")

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# The client is built on httpx or on httpx2, depending on its version; its own error derives from either's base.
TRANSPORT_ERROR = HfHubHTTPError.__mro__[1]

LATER = 0
"""The key of the advice for no answer, or an unknown one."""
ADVICE = {
    LATER: "Run this stage again when the Hub is back: it goes on where it stopped.",
    400: "The Hub found a mistake in what was sent; its message says which.",
    401: "Set HF_TOKEN to a valid token with write access to {repo_id}, or run `hf auth login`.",
    403: "The token has no write access to {repo_id}: give it write access there, or change `repo_id`.",
    404: "There is no {repo_id}, or the token may not see it: check the spelling of `repo_id` and the token.",
    409: "Something of that name exists or is being changed: choose another `repo_id` or `tag`, or try again.",
    412: "The branch kept moving: stop whatever else commits to {repo_id}, then run this stage again.",
    429: "The Hub limits the rate of requests: wait a few minutes, then run this stage again.",
}
READING = {
    LATER: "Try again when the Hub is back.",
    400: ADVICE[400],
    401: "Set HF_TOKEN to a valid token that may read {repo_id}, or run `hf auth login`.",
    403: "The token may not read {repo_id}: where it is gated, ask for access on its page, with that token's account.",
    404: "There is no {repo_id}, or the token may not see it: check the spelling, and HF_TOKEN where it is private.",
    429: "The Hub limits the rate of requests: wait a few minutes, then try again.",
}
"""The advice for reading a repository without writing."""
LONGEST_QUOTE = 400
"""Characters of a Hub's own message that are passed on."""


@dataclass(frozen=True)
class Retry:
    """How often a request is tried and how long to wait in between (seconds).

    The wait doubles from ``first_wait`` up to ``longest_wait``. A Hub's own wait (``Retry-After``) is used instead, up
    to ``longest_asked``; its window for rate limits is 300 s.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 30.0
    longest_asked: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, error: BaseException) -> bool:
        """Waits after the failed ``attempt`` (from 1); returns False if another one isn't worth it."""
        if attempt >= self.attempts:
            return False
        seconds = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
        asked = retry_after(error)
        if asked is not None:
            if asked > self.longest_asked:
                return False
            seconds = asked
        self.sleep(seconds)
        return True


@dataclass(frozen=True)
class Caller:
    """Sends requests about one repository: retries them if that helps, and explains a failure if not."""

    repo_id: str
    token: str
    retry: Retry = Retry()
    advices: Mapping[int, str] = field(default_factory=lambda: ADVICE)

    def __call__(self, action: str, request: Callable[[], Value], also: frozenset[int] = frozenset()) -> Value:
        """Runs ``request``, again after a transient failure or a status in ``also``.

        ``request`` must read the repository anew on each call if a lost answer may have changed it. The user reads
        ``action`` in the message, as in "couldn't create the tag".

        Raises:
            HubError: a final answer.
            HubUnreachable: no good answer after all attempts.
        """
        for attempt in count(1):
            try:
                return request()
            except Exception as error:
                if not is_from_hub(error):
                    raise
                again = is_transient(error) or status_of(error) in also
                if again and self.retry.wait(attempt, error):
                    log.warning("%s, trying again", self.explain(action, error))
                    continue
                tries = f" after {attempt} attempts" if attempt > 1 else ""
                message = f"{self.explain(action, error)}{tries}. {self.advice(error)}"
                # The chain is cut: the client's own exceptions quote requests, which may hold credentials.
                raise (HubUnreachable if is_transient(error) else HubError)(message) from None
        raise AssertionError("unreachable")

    def explain(self, action: str, error: BaseException) -> str:
        """The failure in a few words, with the Hub's own message."""
        error, status = root(error), status_of(error)
        if status is None:
            return redact(f"Couldn't {action}: {one_line(str(error)) or type(error).__name__}", self.token)
        said = one_line(getattr(error, "server_message", None) or "")
        return redact(f"Couldn't {action}: the Hub answered {status}{f' ({said})' if said else ''}", self.token)

    def advice(self, error: BaseException) -> str:
        if isinstance(root(error), OfflineModeIsEnabled):
            return "Unset HF_HUB_OFFLINE to talk to a Hub."
        if isinstance(root(error), ValueError) and not is_transient(error):
            return self.advices[400]
        return self.advices.get(status_of(error) or LATER, self.advices[LATER]).format(repo_id=self.repo_id)


def one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


def root(error: BaseException) -> BaseException:
    """The Hub's own error: the client wraps an error that happens while it moves a file."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """The status that the Hub answered with; None if there was no answer."""
    return getattr(getattr(root(error), "response", None), "status_code", None)


def is_from_hub(error: BaseException) -> bool:
    """Whether an exception is about the Hub's answer, not about a mistake in this program."""
    error = root(error)
    known = TRANSPORT_ERROR | ConnectionError | TimeoutError | ValueError
    return isinstance(error, known) or is_incomplete(error)


def is_incomplete(error: BaseException) -> bool:
    """Whether a download came without its headers or with too few bytes: then the client raises a bare OSError."""
    return isinstance(error, FileMetadataError) or (type(error) is OSError and error.errno is None)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, a busy Hub, or a proxy's page in place of JSON."""
    error = root(error)
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    lost = TRANSPORT_ERROR | ConnectionError | TimeoutError | json.JSONDecodeError
    return isinstance(error, lost) or is_incomplete(error)


def retry_after(error: BaseException) -> float | None:
    """The seconds that the Hub asks to wait, in ``Retry-After`` or as ``t=`` of its ``RateLimit`` header."""
    headers = getattr(getattr(root(error), "response", None), "headers", {})
    value = headers.get("retry-after", "")
    if not value:
        fields = dict(part.strip().partition("=")[::2] for part in headers.get("ratelimit", "").split(";"))
        value = fields.get("t", "") if fields.get("r") == "0" else ""
    return float(value) if value.strip().isdecimal() else None
