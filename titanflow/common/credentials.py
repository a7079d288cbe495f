"""Secrets in names and texts: recognised, and cut out before a text is shown, logged or written."""

from __future__ import annotations

import os
import re

TOKEN_PATTERN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+@|(?<=[?&]write_token=)[^&\s]+")
"""A token in the Hub's own format, or the credentials in a URL, where Trackio's stand in the query."""

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSW", "PASSPHRASE")
"""Words in the names of environment variables that hold secrets."""


def redact(text: str, token: str | None = None) -> str:
    """``text`` without ``token``, without anything that looks like a token, and without credentials in URLs."""
    if token := token or os.environ.get("HF_TOKEN"):
        text = text.replace(token, "[redacted]")
    return TOKEN_PATTERN.sub("[redacted]", text)


def is_secret(name: str) -> bool:
    """Whether an environment variable of that name looks like a secret."""
    # TOKENIZERS_PARALLELISM is none.
    return any(word in name.upper().replace("TOKENIZER", "") for word in SECRET_WORDS)
