"""Chat templates: the built-in ``chatml`` and a user's own ``.jinja`` files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from titanflow.errors import DataError, Problem

CHATML = "chatml"
_BUILT_IN = {CHATML: Path(__file__).with_name("chatml.jinja")}
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def template_text(template: str, key: str = "chat.template") -> str:
    """The Jinja source of a template: a built-in one's name or a file's path.

    Raises:
        DataError: there is no such template, or it doesn't mark what the assistant says.
    """
    path = _BUILT_IN.get(template, Path(template).expanduser())
    if not path.is_file():
        raise DataError(
            Problem(
                f"chat template {template} isn't there",
                key,
                expected=f"one of {', '.join(_BUILT_IN)}, or the path of a .jinja file",
            )
        )
    text = path.read_text(encoding="utf-8")
    if not _GENERATION.search(text):
        raise DataError(
            Problem(
                "the template doesn't mark which text is the assistant's",
                key,
                origin=str(path),
                expected="{% generation %} … {% endgeneration %} around an assistant turn's content and end of turn",
                hint="without these marks nobody can tell which tokens to train",
            )
        )
    return text


def template_digest(template: str) -> str:
    """SHA-256 of a template's source, in hexadecimal.

    Raises:
        DataError: see :func:`template_text`.
    """
    return hashlib.sha256(template_text(template).encode()).hexdigest()
