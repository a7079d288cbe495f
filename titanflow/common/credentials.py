"""Cuts tokens and passwords out of a text before it is shown, logged or written."""

from __future__ import annotations

import os
import re

TOKEN_PATTERN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+@")
"""A token in the Hub's own format, or the credentials in a URL."""


def redact(text: str, token: str | None = None) -> str:
    """``text`` without ``token``, without anything that looks like a token, and without credentials in URLs."""
    if token := token or os.environ.get("HF_TOKEN"):
        text = text.replace(token, "[redacted]")
    return TOKEN_PATTERN.sub("[redacted]", text)
